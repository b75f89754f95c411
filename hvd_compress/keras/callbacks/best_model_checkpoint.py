"""BestModelCheckpoint: one file with the best model, written by one rank."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any, final

import keras

from ..saving import compression_state_left_out
from .horovod_callback import HorovodCallback


@final
class BestModelCheckpoint(HorovodCallback):
    """Saves the model on the first rank when a metric is the best so far, as Keras' `ModelCheckpoint` does.

    No collective is started, so it may also be given to the first rank alone. It judges by the logs that it sees: after
    `MetricAverageCallback` in the list, by the mean over ranks. All ranks may load the file: compression state, which
    would be that of the first rank alone, is left out of it.

    Args:
        filepath: ends in ".keras" or ".h5"; or in ".weights.h5" with `save_weights_only`. `{epoch}` and names of
            metrics in it are filled in.
        monitor: name of the metric.
        verbose: 1: print when the model is saved.
        mode: "min" or "max" is best; "auto": by the metric.
        save_freq: "epoch", or a number of batches.
        save_weights_only: leave out the architecture.
        initial_value_threshold: save only what is better than this.

    Raises:
        ValueError: an argument cannot be honoured (Keras').
    """

    def __init__(
        self,
        filepath: str | PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        save_weights_only: bool = False,
        initial_value_threshold: float | None = None,
    ) -> None:
        super().__init__()
        self._checkpoint = keras.callbacks.ModelCheckpoint(
            filepath,
            monitor=monitor,
            verbose=verbose,
            save_best_only=True,
            save_weights_only=save_weights_only,
            mode=mode,
            save_freq=save_freq,
            initial_value_threshold=initial_value_threshold,
        )

    @property
    def best(self) -> float | None:
        """The metric of the saved model; None where none was saved, as on all ranks but the first."""
        found = self._checkpoint.best
        return None if found is None else float(found)

    def set_params(self, params: Mapping[str, Any] | None) -> None:
        super().set_params(params)
        self._checkpoint.set_params(params)

    def set_model(self, model: Any) -> None:
        super().set_model(model)
        self._checkpoint.set_model(model)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        if self.is_first:
            self._checkpoint.on_epoch_begin(epoch, logs)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        if self.is_first:
            with compression_state_left_out():
                self._checkpoint.on_train_batch_end(batch, logs)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        if self.is_first:
            with compression_state_left_out():
                self._checkpoint.on_epoch_end(epoch, logs)
