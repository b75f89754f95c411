"""What a method asks of the optimizer: its learning rate, and who has the momentum."""

from __future__ import annotations

from dataclasses import dataclass

from hvd_compress import Codec, Operator, SignumMajorityVote

RATE, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 5e-4
# A vote moves every weight by the learning rate itself, so that it is chosen like Adam's.
VOTE_RATE = 0.001


@dataclass(frozen=True)
class Recipe:
    """Settings of SGD for one method.

    Args:
        lr: the highest learning rate of the schedule.
        momentum: of the optimizer; 0 where the method has its own.
        weight_decay: of the optimizer. Without momentum there, it is as much larger as momentum would make it.
    """

    lr: float
    momentum: float
    weight_decay: float

    @property
    def nesterov(self) -> bool:
        return self.momentum > 0.0

    @property
    def decoupled_weight_decay(self) -> float:
        """The same where weights shrink by lr x this at every step, past the momentum, as in Keras."""
        return self.weight_decay / (1.0 - self.momentum)


def recipe(compressor: Operator | Codec, lr: float | None) -> Recipe:
    """Return how to train with a method: as one trains without it, but for what its paper asks for.

    Args:
        compressor: the method.
        lr: what the user asked for; None for the usual one.
    """
    own_momentum = isinstance(compressor, Operator) and compressor.has_momentum
    usual = VOTE_RATE if isinstance(compressor, SignumMajorityVote) else RATE
    decay = WEIGHT_DECAY / (1.0 - MOMENTUM) if own_momentum else WEIGHT_DECAY
    return Recipe(usual if lr is None else lr, 0.0 if own_momentum else MOMENTUM, decay)
