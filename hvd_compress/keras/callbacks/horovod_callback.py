"""HorovodCallback: what all callbacks check of a model before it is trained."""

from __future__ import annotations

import warnings
from abc import ABC
from collections.abc import Mapping
from typing import Any

import horovod.tensorflow as stock
import keras

from ...errors import ConfigurationError, UsageError
from ...tensorflow.variable_exchange import VariableExchange
from . import distributed


class HorovodCallback(keras.callbacks.Callback, ABC):
    """Base of the callbacks: refuses what would train wrongly, and switches XLA off where it cannot work."""

    def set_model(self, model: Any) -> None:
        """Take the model; called by `fit` before it makes the function that trains.

        Raises:
            ConfigurationError: the model is not one of Keras 3, or stock Horovod has wrapped its optimizer.
            UsageError: Horovod is not initialised.
        """
        if not stock.is_initialized():
            raise UsageError("Horovod is not initialised; call hvd.init() first.")
        if not isinstance(model, keras.Model):
            raise ConfigurationError(
                f"{type(self).__name__} works on models of Keras 3, not on a {type(model).__module__}."
                f"{type(model).__name__}; for tf_keras, set TF_USE_LEGACY_KERAS=1 and use the callbacks of "
                "hvd_compress.tensorflow.keras."
            )
        optimizer = getattr(model, "optimizer", None)
        distributed.check_not_stock(optimizer)
        if distributed.variable_exchange_of(optimizer) is not None:
            _switch_xla_off(model)
        super().set_model(model)

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Called by `fit` once; not where a model is only evaluated.

        Raises:
            ConfigurationError: nobody would exchange the gradients of this training.
        """
        distributed.check_exchanges(self.model)

    # --- what subclasses ask for ---

    @property
    def optimizer(self) -> Any:
        """The model's optimizer; None where it has none."""
        return getattr(self.model, "optimizer", None)

    @property
    def variable_exchange(self) -> VariableExchange | None:
        """What exchanges gradients; None where the optimizer is not distributed."""
        return distributed.variable_exchange_of(self.optimizer)

    @property
    def process_set(self) -> Any:
        """The ranks that train together: those of the distributed optimizer, otherwise all."""
        return distributed.process_set_of(self.optimizer)

    @property
    def is_first(self) -> bool:
        """Whether this is the first of the ranks that train together."""
        return bool(self.process_set.included()) and self.process_set.rank() == 0


def _switch_xla_off(model: Any) -> None:
    if not model.jit_compile:
        return
    model.jit_compile = False
    model.train_function = None  # one that an earlier fit() made is compiled
    warnings.warn(
        "jit_compile is switched off for this model, because XLA cannot compile Horovod's collectives; pass "
        "jit_compile=False to model.compile() to say so yourself.",
        UserWarning,
        stacklevel=3,
    )
