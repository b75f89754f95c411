"""Horovod's callbacks for tf_keras.

Horovod hands them the module `keras.backend`, which is that of Keras 3 wherever both are installed, and lacks what they
ask of it; they get the backend of tf_keras.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from horovod.tensorflow.keras import callbacks as stock

from ...horovod.elastic import CommitStateCallback, UpdateBatchStateCallback, UpdateEpochStateCallback

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


def _with_backend(kind: type) -> Any:
    """Return Horovod's callback with the backend of tf_keras."""

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        kind.__init__(self, *args, **kwargs)  # type: ignore[misc]
        self.backend = tf.keras.backend

    return type(kind.__name__, (kind,), {"__init__": __init__, "__doc__": kind.__doc__, "__module__": __name__})


BroadcastGlobalVariablesCallback = _with_backend(stock.BroadcastGlobalVariablesCallback)
MetricAverageCallback = _with_backend(stock.MetricAverageCallback)
LearningRateScheduleCallback = _with_backend(stock.LearningRateScheduleCallback)
LearningRateWarmupCallback = _with_backend(stock.LearningRateWarmupCallback)
BestModelCheckpoint = stock.BestModelCheckpoint
