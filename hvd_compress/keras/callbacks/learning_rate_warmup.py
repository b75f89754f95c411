"""LearningRateWarmupCallback: the learning rate grows from that of one worker to that of all."""

from __future__ import annotations

from typing import Any, final

from ...errors import ConfigurationError
from .learning_rate import LearningRateCallback


@final
class LearningRateWarmupCallback(LearningRateCallback):
    """Raises the learning rate from `initial_lr / size` to `initial_lr`, batch by batch, after Goyal et al. (2017).

    In batch b of epoch e it is `initial_lr / size * ((size - 1) / warmup_epochs * x + 1)`, where x is
    `e + (b + 1) / steps_per_epoch`.

    Args:
        initial_lr: the rate after the warm-up; by the linear rule, that of one worker times the number of ranks.
        warmup_epochs: after which it is reached; greater than 0.
        momentum_correction: scale the velocities of SGD and RMSprop with the rate.
        steps_per_epoch: batches in an epoch; needed only where Keras does not know them.
        verbose: 1: the first rank prints when the warm-up is over.

    Raises:
        ConfigurationError: an argument is missing or out of range, or the optimizer's learning rate cannot be set.
    """

    def __init__(
        self,
        initial_lr: float,
        warmup_epochs: float = 5,
        momentum_correction: bool = True,
        steps_per_epoch: int | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(initial_lr, 0, warmup_epochs, False, momentum_correction, steps_per_epoch)
        if not warmup_epochs > 0:
            raise ConfigurationError(f"warmup_epochs={warmup_epochs!r}: give a number greater than 0.")
        self.warmup_epochs = warmup_epochs
        self.verbose = verbose

    def multiplier_at(self, epoch: float) -> float:
        size = self.process_set.size()
        # At the end of every epoch the rate is a round number, as Horovod has it.
        over = epoch + 1.0 / float(self.steps_per_epoch or 1)
        return float(1.0 / size * (over * (size - 1) / self.warmup_epochs + 1))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        if self.verbose > 0 and epoch < self.warmup_epochs <= epoch + 1 and self.is_first:
            print(f"\nEpoch {epoch + 1}: finished gradual learning rate warmup to {self.learning_rate:g}.")
