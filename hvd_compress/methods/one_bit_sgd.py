"""1-bit SGD: one bit an element both ways, with feedback on both sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ..codecs import OneBit
from ..contract import Operator
from ..feedback import ErrorFeedback
from ..operators import TwoWay
from .method import Method


@final
@dataclass(frozen=True, repr=False)
class OneBitSGD(Method):
    """Every element becomes one of two values, the mean of its side of zero, on the way to the server and back.

    p_i = g_i + e_i; e_i <- p_i - C(p_i); p = mean C(p_i) + E; update = C(p); E <- p - update, with C = `OneBit` for
    each shard of each tensor. 2 (W-1)/W (d/8 + 8 W) bytes a worker and tensor.

    Source: Seide, Fu, Droppo, Li, Yu 2014: *1-Bit Stochastic Gradient Descent*, sections 3.1 and 3.2.
    """

    def expression(self) -> Operator:
        return ErrorFeedback(TwoWay(OneBit(), server_feedback=True))
