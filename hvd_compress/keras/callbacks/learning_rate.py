"""LearningRateCallback: what the callbacks that set the learning rate share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import keras

from ...errors import ConfigurationError
from ...tensorflow.fitting import nested_optimizers
from . import momentum_correction as correction
from .horovod_callback import HorovodCallback
from .synchronising import array_of


class LearningRateCallback(HorovodCallback):
    """Sets the learning rate at the beginning of epochs or batches to `initial_lr` times a multiplier.

    Args:
        initial_lr: what the multiplier multiplies.
        start_epoch: the first epoch in which the rate is set.
        end_epoch: the first epoch in which it is no longer set; None: it is set to the end.
        staircase: set it once an epoch; otherwise at every batch.
        momentum_correction: scale the velocities of SGD and RMSprop with the rate.
        steps_per_epoch: batches in an epoch; needed only where Keras does not know them and `staircase` is off.

    Raises:
        ConfigurationError: an argument is missing, or the optimizer's learning rate cannot be set.
    """

    def __init__(
        self,
        initial_lr: float,
        start_epoch: float,
        end_epoch: float | None,
        staircase: bool,
        momentum_correction: bool,
        steps_per_epoch: int | None,
    ) -> None:
        super().__init__()
        if initial_lr is None:
            raise ConfigurationError("initial_lr=None: give the learning rate that is multiplied.")
        self.initial_lr = initial_lr
        self.start_epoch = start_epoch
        self.end_epoch = end_epoch
        self.staircase = staircase
        self.momentum_correction = momentum_correction
        self.steps_per_epoch = steps_per_epoch
        self.current_epoch = 0

    @abstractmethod
    def multiplier_at(self, epoch: float) -> float:
        """Return the multiplier.

        Args:
            epoch: full epochs, and the part of this one that is over where the rate is set at every batch.
        """

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        self._check_optimizer()
        if not self.staircase and not self.steps_per_epoch:
            self.steps_per_epoch = (self.params or {}).get("steps")
            if not self.steps_per_epoch:
                raise ConfigurationError(
                    f"Keras does not know how many batches an epoch has; pass steps_per_epoch=... to "
                    f"{type(self).__name__}()."
                )

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self.current_epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        if self.current_epoch < self.start_epoch:
            return
        if self.end_epoch is not None and self.current_epoch >= self.end_epoch:
            return
        if not self.staircase:
            self._set(self.current_epoch + batch / float(self.steps_per_epoch or 1))
        elif batch == 0:
            self._set(self.current_epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is not None:
            logs["lr"] = self.learning_rate

    @property
    def learning_rate(self) -> float:
        """The optimizer's learning rate."""
        return float(array_of(nested_optimizers(self.optimizer)[-1].learning_rate))

    def _set(self, epoch: float) -> None:
        old, new = self.learning_rate, self.initial_lr * self.multiplier_at(epoch)
        self.optimizer.learning_rate = new
        if self.momentum_correction:
            correction.scale_velocities(nested_optimizers(self.optimizer)[-1], old, new)

    def _check_optimizer(self) -> None:
        if self.optimizer is None:
            raise ConfigurationError(
                f"{type(self).__name__} sets a learning rate; compile the model with an optimizer."
            )
        innermost = nested_optimizers(self.optimizer)[-1]
        if not isinstance(innermost.learning_rate, keras.Variable):
            raise ConfigurationError(
                f"The learning rate of this {type(innermost).__name__} is a schedule or a function, which "
                f"{type(self).__name__} cannot set; give the optimizer a number, or leave out the callback."
            )
        if isinstance(innermost, getattr(keras.optimizers, "MultiOptimizer", ())):
            raise ConfigurationError(
                f"{type(self).__name__} sets one learning rate, and MultiOptimizer has several; use one optimizer."
            )
        if self.momentum_correction:
            correction.check_known(innermost)
