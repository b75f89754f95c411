"""Atomo: a random few singular triplets of every worker's gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ..codecs import Spectral
from ..contract import Operator
from ..operators import AllGather
from .method import Method


@final
@dataclass(frozen=True, repr=False)
class Atomo(Method):
    """Spectral Atomo: unbiased sparsification of singular values, gathered and averaged; no feedback, no state.

    mean = 1/W sum_i sum over picked j of sigma_j/p_j u_j v_j^T, with p_j = min(1, r sigma_j / sum sigma) of worker i.

    One allgather a step: a worker sends (W - 1) r (n + m) numbers for an n x m matrix, and takes an SVD of it. Vectors
    and small matrices travel dense.

    Args:
        rank: r >= 1, the most triplets that a worker sends of a matrix.

    Raises:
        ConfigurationError: rank is not a whole number >= 1.

    Source: Wang, Sievert, Liu, Charles, Papailiopoulos, Wright 2018 (arXiv:1806.04090).
    """

    rank: int = 3

    def __post_init__(self) -> None:
        self.expression()

    def expression(self) -> Operator:
        return AllGather(Spectral(self.rank))
