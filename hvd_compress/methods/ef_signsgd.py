"""EF-SignSGD: scaled signs with error feedback."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ..codecs import BlockSign
from ..contract import Operator
from ..feedback import ErrorFeedback
from ..operators import AllGather
from .method import Method


@final
@dataclass(frozen=True, repr=False)
class EFSignSGD(Method):
    """Each worker sends the signs of a tensor and their mean magnitude, and keeps what that misses.

    p_i = g_i + e_i; update = mean of s_i = mean|p_i| sign(p_i); e_i <- p_i - s_i.

    One allgather a step of d/8 + 4 bytes a tensor, times W - 1: with many workers `DistEFBlockSGD` sends less. The
    residual is kept in units of the gradient; where the learning rate changes, `StepSizeScaling(EFSignSGD())` keeps
    it in units of the step, as the paper does.

    Source: Karimireddy, Rebjock, Stich, Jaggi 2019 (arXiv:1901.09847), Algorithm 1, on every worker.
    """

    def expression(self) -> Operator:
        return ErrorFeedback(AllGather(BlockSign()))
