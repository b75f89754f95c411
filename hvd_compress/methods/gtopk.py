"""GTopK: the same k elements of all ranks together, and a memory of the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ..contract import Operator
from ..feedback import ErrorFeedback
from ..operators import GlobalTopK
from .method import Method


@final
@dataclass(frozen=True, repr=False)
class GTopK(Method):
    """Global top-k with error feedback: k elements are merged in log2 W rounds and applied on every rank.

    p_i = g_i + e_i; update = 1/W (top_k(p_1) + ... + top_k(p_W), merged pair by pair, k kept each time);
    e_i <- p_i - what of p_i is in the update.

    Args:
        ratio: k/d, share of elements that is applied, 0 < ratio <= 1.
        min_size: tensors with fewer elements, and those with fewer than 2 dimensions, travel dense.

    Raises:
        ConfigurationError: a setting is out of range.

    Source: Shi et al. 2019 (arXiv:1901.04359), Algorithm 4; for any W.
    """

    ratio: float = 0.001
    min_size: int = 1024

    def __post_init__(self) -> None:
        self.expression()

    def expression(self) -> Operator:
        return ErrorFeedback(GlobalTopK(self.ratio, self.min_size))
