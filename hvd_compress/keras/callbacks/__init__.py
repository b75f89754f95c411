"""Callbacks of Horovod that work on Keras 3, and one that tells of compression."""

from ...horovod.elastic import CommitStateCallback, UpdateBatchStateCallback, UpdateEpochStateCallback
from .best_model_checkpoint import BestModelCheckpoint
from .broadcast_global_variables import BroadcastGlobalVariablesCallback
from .compression_metrics import CompressionMetricsCallback
from .learning_rate_schedule import LearningRateScheduleCallback
from .learning_rate_warmup import LearningRateWarmupCallback
from .metric_average import MetricAverageCallback

__all__ = [
    "BestModelCheckpoint",
    "BroadcastGlobalVariablesCallback",
    "CommitStateCallback",
    "CompressionMetricsCallback",
    "LearningRateScheduleCallback",
    "LearningRateWarmupCallback",
    "MetricAverageCallback",
    "UpdateBatchStateCallback",
    "UpdateEpochStateCallback",
]
