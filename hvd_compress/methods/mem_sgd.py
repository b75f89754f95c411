"""MemSGD: a few elements a step, and a memory of the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final, get_args

from ..codecs import TopK
from ..contract import Operator, check_choice
from ..feedback import ErrorFeedback
from ..operators import AllGather, RandomBlock, RandomK
from .method import Method

Selection = Literal["exact", "chunked", "random", "block"]


@final
@dataclass(frozen=True, repr=False)
class MemSGD(Method):
    """Send k = ceil(ratio d) elements of every tensor; what is not sent is added to the next gradient.

    p_i = g_i + e_i; update = mean_i C(p_i); e_i <- p_i - C(p_i), C the selection. Often called local top-k.

    With a top-k selection every rank sends its own choice by allgather: bytes grow with W, 2 k (W - 1) numbers. With
    "random" or "block" all ranks send the same elements by one allreduce of k values, whatever W is.

    Args:
        ratio: share of elements that is sent, 0 < ratio <= 1.
        selection: "exact", the k largest |p|; "chunked", the largest of every ceil(1/ratio) elements (both `TopK`);
            "random", k drawn alike on all ranks (`RandomK`); "block", k consecutive ones (`RandomBlock`).
        min_size: tensors with fewer elements, and those with fewer than 2 dimensions, travel dense.
        seed: of the random selections, equal on all ranks, >= 0.

    Raises:
        ConfigurationError: a setting is out of range.

    Source: Stich, Cordonnier, Jaggi 2018 (arXiv:1809.07599), Algorithm 2, with the learning rate outside.
    """

    ratio: float = 0.01
    selection: Selection = "exact"
    min_size: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice(self, "selection", self.selection, get_args(Selection))
        RandomK(self.ratio, self.seed, self.min_size)

    def expression(self) -> Operator:
        if self.selection == "random":
            return ErrorFeedback(RandomK(self.ratio, self.seed, self.min_size))
        if self.selection == "block":
            return ErrorFeedback(RandomBlock(self.ratio, self.seed, self.min_size))
        return ErrorFeedback(AllGather(TopK(self.ratio, self.selection, self.min_size)))
