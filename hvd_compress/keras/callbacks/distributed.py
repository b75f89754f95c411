"""What callbacks must know of an optimizer: whether it is distributed, by whom, and how."""

from __future__ import annotations

from typing import Any

import horovod.tensorflow as stock
import keras

from ...errors import ConfigurationError
from ...tensorflow import fitting
from ...tensorflow.fitting import nested_optimizers
from ...tensorflow.gradient_exchange import GradientExchange
from ...tensorflow.variable_exchange import VariableExchange

_STOCK_MODULE = "horovod._keras"


def variable_exchange_of(optimizer: Any) -> VariableExchange | None:
    """Return what exchanges the gradients of an optimizer; None for one that is not distributed."""
    for layer in nested_optimizers(optimizer):
        found = getattr(layer, "variable_exchange", None)
        if isinstance(found, VariableExchange):
            return found
    return None


def gradient_exchange_of(optimizer: Any) -> GradientExchange | None:
    """Return the planned exchange of an optimizer; None before its first step and for one that is not distributed."""
    found = variable_exchange_of(optimizer)
    return None if found is None else found.exchange


def process_set_of(optimizer: Any) -> Any:
    """Return the ranks that train with an optimizer: all, where it is not distributed."""
    found = variable_exchange_of(optimizer)
    return stock.global_process_set if found is None else found.process_set


def check_exchanges(model: Any) -> None:
    """Raise for a model that every rank would train by itself.

    Raises:
        ConfigurationError: it is such a model, and there are several ranks.
    """
    fitting.check_exchanges(model, keras.Model, lambda layer: variable_exchange_of(layer) is not None)


def check_not_stock(optimizer: Any) -> None:
    """Raise for an optimizer that Horovod itself has wrapped.

    Raises:
        ConfigurationError: it is.
    """
    for layer in nested_optimizers(optimizer):
        if any(kind.__module__ == _STOCK_MODULE for kind in type(layer).__mro__):
            raise ConfigurationError(
                f"This {type(layer).__name__} was wrapped by Horovod's own DistributedOptimizer, which reduces no "
                "gradient under Keras 3, so that every rank would train a model of its own: wrap it with "
                "hvd.DistributedOptimizer after `import hvd_compress.keras as hvd`."
            )
