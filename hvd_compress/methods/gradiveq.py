"""GradiVeQ: slices of the gradient in principal axes that are learnt at dense steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ..contract import Operator
from ..feedback import ErrorFeedback
from ..operators import SliceProjection
from .method import Method


@final
@dataclass(frozen=True, repr=False)
class GradiVeQ(Method):
    """Send D principal coordinates of every slice of K elements: update = S B B^T for the slices S, one a row.

    The first `collect` steps of every `period` travel dense; the basis B is the D leading eigenvectors of the sum of
    S^T S over them. One allreduce a step, of ceil(d/K) D numbers. Vectors and small tensors travel dense.

    Args:
        slice_length: K >= 1, elements.
        dims: D, from 1 to K.
        period: steps from one start of collecting to the next, >= collect.
        collect: dense steps in every period, >= 1.
        error_feedback: keep what was not sent and add it to the next gradient.
        min_saving: compress a tensor only where ceil(d/K) D min_saving < d; 0 compresses every one of 2-D or more.

    Raises:
        ConfigurationError: a setting is out of range.

    Source: Yu, Lin, Narra, Li, Li, Kim, Schwing, Annavaram, Avestimehr 2018 (arXiv:1811.03617).
    """

    slice_length: int = 512
    dims: int = 64
    period: int = 500
    collect: int = 100
    error_feedback: bool = False
    min_saving: float = 1.0

    def __post_init__(self) -> None:
        self.expression()

    def expression(self) -> Operator:
        operator = SliceProjection(self.slice_length, self.dims, self.period, self.collect, self.min_saving)
        return ErrorFeedback(operator) if self.error_feedback else operator
