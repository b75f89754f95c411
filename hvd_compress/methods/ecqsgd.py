"""ECQSGD: quantised gradients with weighted, decaying error feedback."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from ..codecs import QSGD
from ..contract import Operator
from ..feedback import ErrorFeedback
from ..operators import AllGather
from .method import Method


@final
@dataclass(frozen=True, repr=False)
class ECQSGD(Method):
    """QSGD of the gradient and a share of all earlier losses: p = g + alpha h; s = Q(p); h <- beta h + (g - s).

    Everything is gathered: bytes grow with the number of workers. Q adds (w - 1) ||p||^2 of noise
    (`QSGD.variance_factor`), which alpha damps: the memory stays bounded where (beta - alpha)^2 + alpha^2 (w - 1) < 1.

    Args:
        levels: s of `QSGD`, 1 to 127.
        bucket: elements that share a norm, >= 1.
        alpha: weight of the memory in what is sent.
        beta: weight of the memory that is kept; below 1 old losses fade.
        norm: "l2" or "max".

    Raises:
        ConfigurationError: a setting is out of range.

    Source: Wu, Huang, Huang, Zhang 2018 (arXiv:1806.08054), Algorithm 1.
    """

    levels: int = 7
    bucket: int = 512
    alpha: float = 0.2
    beta: float = 0.9
    norm: Literal["l2", "max"] = "l2"

    def __post_init__(self) -> None:
        self.expression()

    def expression(self) -> Operator:
        return ErrorFeedback(AllGather(QSGD(self.levels, self.bucket, self.norm)), self.alpha, self.beta)
