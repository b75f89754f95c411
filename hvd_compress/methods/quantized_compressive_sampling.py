"""QuantizedCompressiveSampling: random projections of gradients, quantised, with weighted error feedback."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ..contract import Operator
from ..feedback import ErrorFeedback
from ..operators import RandomProjection, SharedScale
from .method import Method


@final
@dataclass(frozen=True, repr=False)
class QuantizedCompressiveSampling(Method):
    """Send k of B coefficients of a randomised Hadamard transform, each rounded at random to s levels of their maximum.

    p = g + a h; y = T p; mean = T^T mean(Q(y)); h <- b h + (g - T^T Q(y)). All workers draw the same T at every step,
    and round to one grid (`SharedScale`), so that an allreduce adds up what they send.

    Args:
        share: k/B, above 0, at most 1.
        levels: s, 1 to 127.
        block: B, a power of two.
        bucket: coefficients that share a maximum, >= 1; 0 for all of them.
        alpha: a, weight of the memory in what is sent.
        beta: b, weight of the memory that is kept.
        seed: of the transform, equal on all ranks.

    Raises:
        ConfigurationError: a setting is out of range.

    Source: Abdi, Fekri 2020 (AAAI 34).
    """

    share: float = 0.5
    levels: int = 7
    block: int = 1024
    bucket: int = 512
    alpha: float = 1.0
    beta: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        self.expression()

    def expression(self) -> Operator:
        inner = SharedScale(self.levels, self.bucket)
        projected = RandomProjection(inner, self.share, self.block, self.seed)
        return ErrorFeedback(projected, self.alpha, self.beta)
