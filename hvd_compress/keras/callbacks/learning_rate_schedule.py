"""LearningRateScheduleCallback: the learning rate follows a function of the epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from .learning_rate import LearningRateCallback


@final
class LearningRateScheduleCallback(LearningRateCallback):
    """Sets the learning rate to `initial_lr * multiplier` from one epoch to another.

    Args:
        initial_lr: learning rate at the start of training.
        multiplier: a function of the epoch; or a number, whose power by the epochs since `start_epoch` is taken.
        start_epoch: the first epoch in which the rate is set.
        end_epoch: the first epoch in which it is no longer set; None: it is set to the end.
        staircase: set it once an epoch, by whole epochs; otherwise at every batch, by
            `epoch + batch / steps_per_epoch`.
        momentum_correction: scale the velocities of SGD and RMSprop with the rate.
        steps_per_epoch: batches in an epoch; needed only where Keras does not know them and `staircase` is off.

    Raises:
        ConfigurationError: an argument is missing, or the optimizer's learning rate cannot be set.
    """

    def __init__(
        self,
        initial_lr: float,
        multiplier: float | Callable[[float], float],
        start_epoch: float = 0,
        end_epoch: float | None = None,
        staircase: bool = True,
        momentum_correction: bool = True,
        steps_per_epoch: int | None = None,
    ) -> None:
        super().__init__(initial_lr, start_epoch, end_epoch, staircase, momentum_correction, steps_per_epoch)
        self.multiplier = multiplier

    def multiplier_at(self, epoch: float) -> float:
        if callable(self.multiplier):
            return self.multiplier(epoch)
        return float(self.multiplier ** (epoch - self.start_epoch))
