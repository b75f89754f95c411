"""A Keras callback that shows progress and takes the time."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, final

import keras

from .measure import StepClock
from .progress import Progress


@final
class Reports(keras.callbacks.Callback):
    """Shows progress on rank 0, times the steps and keeps the accuracy after each epoch.

    Args:
        total: steps in all.
        rank: of this worker.
        world_size: number of workers.
    """

    def __init__(self, total: int, rank: int, world_size: int) -> None:
        super().__init__()
        self.clock = StepClock()
        self.accuracies: list[tuple[int, float]] = []
        self.steps = 0
        self._progress = Progress(total, rank, world_size)
        self._step = ExitStack()

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self._progress.__enter__()

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        self._progress.__exit__(None, None, None)

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._step.enter_context(self.clock.step())

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._step.close()
        self.steps += 1
        if logs and self._progress.due(self.steps):
            self._progress.report(self.steps, float(logs["loss"]))

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        if logs:
            self.accuracies.append((self.steps, float(logs["val_accuracy"])))
