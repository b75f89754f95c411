"""What a method asks of the optimizer: its learning rate, and who has the momentum."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from hvd_compress import Codec, Operator, SignumMajorityVote

RATE = 0.1
# A vote moves every weight by the learning rate itself, so that it is chosen like Adam's.
VOTE_RATE = 0.001


@dataclass(frozen=True)
class Recipe:
    """Settings of SGD for one method.

    Args:
        lr: the highest learning rate of the schedule.
        momentum: of the optimizer; 0 where the method has its own.
    """

    lr: float
    momentum: float

    def optimizer(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.SGD:
        nesterov = self.momentum > 0.0
        return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum, weight_decay=5e-4, nesterov=nesterov)


def recipe(compressor: Operator | Codec, lr: float | None) -> Recipe:
    """Return how to train with a method: as one trains without it, but for what its paper asks for.

    Args:
        compressor: the method.
        lr: what the user asked for; None for the usual one.
    """
    own_momentum = isinstance(compressor, Operator) and compressor.has_momentum
    usual = VOTE_RATE if isinstance(compressor, SignumMajorityVote) else RATE
    return Recipe(usual if lr is None else lr, 0.0 if own_momentum else 0.9)
