"""UnbiasedLowRank: random projections of the mean gradient, without feedback."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ..contract import Operator
from ..operators import RandomLowRank
from .method import Method


@final
@dataclass(frozen=True, repr=False)
class UnbiasedLowRank(Method):
    """Project the mean gradient M on r random directions: update = (M U) U^T, whose mean over draws is M.

    U (m x r) is standard normal over sqrt(r), drawn anew at every step, alike on all ranks. One allreduce of r n
    numbers per n x m matrix; no feedback, no state.

    Args:
        rank: r >= 1; min(n, m, r) is used.
        seed: of U, equal on all ranks.
        min_saving: compress a matrix only where r n min_saving < n m; 0 compresses every matrix.

    Raises:
        ConfigurationError: a setting is out of range.

    Source: Vogels, Karimireddy, Jaggi 2019 (arXiv:1905.13727), "unbiased rank r".
    """

    rank: int = 4
    seed: int = 0
    min_saving: float = 1.0

    def __post_init__(self) -> None:
        self.expression()

    def expression(self) -> Operator:
        return RandomLowRank(self.rank, self.seed, self.min_saving)
