"""MetricAverageCallback: the metrics of an epoch are those of all ranks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, final

import numpy as np
import tensorflow as tf

from .horovod_callback import HorovodCallback
from .synchronising import gather_objects

_NAME = "hvd_compress.keras.metrics"


@final
class MetricAverageCallback(HorovodCallback):
    """Replaces every number in the logs of an epoch, also `val_` ones, by its mean over ranks.

    It stands in the list before the callbacks that are to see the means (`EarlyStopping`, `ReduceLROnPlateau`,
    `BestModelCheckpoint`, `TensorBoard`, ...). What is no number stays each rank's own, and so does, with a warning,
    what only some ranks have.

    Args:
        device: that Horovod gets tensors from; "" leaves it to TensorFlow.
    """

    def __init__(self, device: str = "") -> None:
        super().__init__()
        self.device = device
        self._told: set[str] = set()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is None:
            logs = {}
        if not self.process_set.included():
            return
        own = {name: _number(value) for name, value in logs.items()}
        with tf.device(self.device):
            everyone = gather_objects(own, _NAME, self.process_set)
        self._tell_of_missing(everyone)
        for name in own:
            values = [other.get(name) for other in everyone]
            numbers = [value for value in values if value is not None]
            if len(numbers) == len(everyone):
                logs[name] = sum(numbers) / len(numbers)

    def _tell_of_missing(self, everyone: list[dict[str, float | None]]) -> None:
        """Warn, once for each, of numbers that only some ranks have; the same on all ranks."""
        names = {name for other in everyone for name, value in other.items() if value is not None}
        missing = {
            name: [rank for rank, other in enumerate(everyone) if other.get(name) is None] for name in sorted(names)
        }
        missing = {name: ranks for name, ranks in missing.items() if ranks and name not in self._told}
        self._told |= missing.keys()
        if missing:
            warnings.warn(
                f"Metrics that only some ranks have are not averaged (ranks that lack each: {missing}); give all ranks "
                "the same metrics and validation data, or else callbacks that act on them differ between ranks.",
                UserWarning,
                stacklevel=2,
            )


def _number(value: Any) -> float | None:
    """Return a scalar as a float; None for anything else."""
    if isinstance(value, (str, bytes, Mapping)) or value is None:
        return None
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        return None
    return float(array) if array.ndim == 0 and array.dtype.kind in "biuf" else None
