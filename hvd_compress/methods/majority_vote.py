"""Signum with majority vote: every element moves the way that most workers would move it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ..codecs import BlockSign
from ..contract import Operator, check_fraction
from ..feedback import Momentum
from ..operators import Joined, TwoWay
from .method import Method


@final
@dataclass(frozen=True, repr=False)
class SignumMajorityVote(Method):
    """m_i = mu m_i + (1 - mu) g_i; update = sign(sum_i sign(m_i)): +1 or -1, with +1 for 0 and for ties.

    The learning rate is the distance that every parameter moves, like Adam's. There is no feedback. Weight decay in
    the optimizer is decoupled from the vote. 2 (W-1)/W d/8 bytes a worker, whatever W is. A gradient too small to be
    worth it is voted on all the same: an average would be no vote.

    Args:
        momentum: mu, 0 <= mu < 1; 0 is signSGD with majority vote. The optimizer must have none.

    Raises:
        ConfigurationError: momentum is out of range.

    Source: Bernstein, Zhao, Azizzadenesheli, Anandkumar 2019 (arXiv:1810.05291), Algorithm 1.
    """

    momentum: float = 0.9

    def __post_init__(self) -> None:
        check_fraction(self, "momentum", self.momentum, zero=True, one=False)

    def expression(self) -> Operator:
        vote = TwoWay(BlockSign(scaled=False))
        mu = self.momentum
        # Joined, the bits of many small tensors fill whole bytes, and votes are element by element anyhow.
        return Joined(Momentum(vote, mu, dampening=mu, nesterov=False) if mu else vote)
