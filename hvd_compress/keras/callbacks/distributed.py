"""What callbacks must know of an optimizer: whether it is distributed, by whom, and how."""

from __future__ import annotations

from typing import Any

import horovod.tensorflow as stock
import keras

from ...errors import ConfigurationError
from ...tensorflow.gradient_exchange import GradientExchange
from ...tensorflow.variable_exchange import VariableExchange

_STOCK_MODULE = "horovod._keras"


def nested_optimizers(optimizer: Any) -> list[Any]:
    """Return an optimizer and those inside it (`LossScaleOptimizer`), outermost first."""
    found = []
    while optimizer is not None:
        found.append(optimizer)
        optimizer = getattr(optimizer, "inner_optimizer", None)
    return found


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
    """Raise for a model that every rank would train by itself: its steps are those of Keras, its optimizer is plain.

    A model with a `train_step` of its own may exchange gradients there, by a tape.

    Raises:
        ConfigurationError: it is such a model, and there are several ranks.
    """
    optimizer = getattr(model, "optimizer", None)
    own_step = type(model).train_step is not keras.Model.train_step or "train_step" in vars(model)
    # An optimizer that leaves variables to several others: each of these is distributed or not.
    several = any(hasattr(layer, "optimizers") for layer in nested_optimizers(optimizer))
    if stock.size() == 1 or optimizer is None or own_step or several or variable_exchange_of(optimizer) is not None:
        return
    raise ConfigurationError(
        f"The {type(optimizer).__name__} of this model is not distributed, so that every rank would train a model of "
        "its own: wrap it with hvd.DistributedOptimizer before model.compile(), or load a saved one by hvd.load_model."
    )


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
