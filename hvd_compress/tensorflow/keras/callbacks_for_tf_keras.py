"""Horovod's callbacks for tf_keras.

Horovod hands them the module `keras.backend`, which is that of Keras 3 wherever both are installed, and lacks what they
ask of it; they get the backend of tf_keras. Its newer optimizers have their momentum as a plain number, which Horovod's
cannot set for one step; there the velocities, which are variables, are scaled instead, which comes to the same.

All of them refuse a training in which nobody would exchange gradients.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from horovod.tensorflow.keras import callbacks as stock

from ...horovod.elastic import CommitStateCallback, UpdateBatchStateCallback, UpdateEpochStateCallback
from .. import fitting
from ..variable_exchange import VariableExchange

__all__ = [
    "BestModelCheckpoint",
    "BroadcastGlobalVariablesCallback",
    "CommitStateCallback",
    "LearningRateScheduleCallback",
    "LearningRateWarmupCallback",
    "MetricAverageCallback",
    "UpdateBatchStateCallback",
    "UpdateEpochStateCallback",
]


_STOCK_MODULE = "horovod._keras"


def _is_distributed(optimizer: Any) -> bool:
    """Return whether an optimizer exchanges gradients: by us, or by Horovod, whose own works on tf_keras."""
    if isinstance(getattr(optimizer, "exchange", None), VariableExchange):
        return True
    return any(kind.__module__ == _STOCK_MODULE for kind in type(optimizer).__mro__)


def _checked(kind: Any) -> Any:
    """Return Horovod's callback, which refuses to train where every rank would train a model of its own."""

    def on_train_begin(self: Any, logs: Mapping[str, Any] | None = None) -> None:
        fitting.check_exchanges(self.model, tf.keras.Model, _is_distributed)
        kind.on_train_begin(self, logs)

    members = {"on_train_begin": on_train_begin, "__doc__": kind.__doc__, "__module__": __name__}
    return type(kind.__name__, (kind,), members)


def _with_backend(kind: type) -> Any:
    """Return Horovod's callback with the backend of tf_keras."""

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        kind.__init__(self, *args, **kwargs)  # type: ignore[misc]
        self.backend = tf.keras.backend

    return type(kind.__name__, (kind,), {"__init__": __init__, "__doc__": kind.__doc__, "__module__": __name__})


def _with_momentum(kind: Any) -> Any:
    """Return a callback that sets learning rates, with a momentum correction that the newer optimizers can follow."""

    def _adjust_learning_rate(self: Any, epoch: float) -> None:
        optimizer = self.model.optimizer
        if not self.momentum_correction or not isinstance(getattr(optimizer, "momentum", None), (int, float)):
            kind._adjust_learning_rate(self, epoch)
            return
        old = float(self.backend.get_value(optimizer.lr))
        self.momentum_correction = False
        try:
            kind._adjust_learning_rate(self, epoch)
        finally:
            self.momentum_correction = True
        if old and optimizer.momentum:
            for velocity in getattr(optimizer, "momentums", getattr(optimizer, "_momentums", ())):
                velocity.assign(velocity * tf.cast(float(self.backend.get_value(optimizer.lr)) / old, velocity.dtype))

    members = {"_adjust_learning_rate": _adjust_learning_rate, "__doc__": kind.__doc__, "__module__": __name__}
    return type(kind.__name__, (kind,), members)


BroadcastGlobalVariablesCallback = _checked(_with_backend(stock.BroadcastGlobalVariablesCallback))
MetricAverageCallback = _checked(_with_backend(stock.MetricAverageCallback))
LearningRateScheduleCallback = _checked(_with_momentum(_with_backend(stock.LearningRateScheduleCallback)))
LearningRateWarmupCallback = _checked(_with_momentum(_with_backend(stock.LearningRateWarmupCallback)))
BestModelCheckpoint = _checked(stock.BestModelCheckpoint)
