"""BestLowRank: the best rank-r approximation by SVD, as the reference for the cheap ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ..contract import (
    Array,
    Context,
    Exchange,
    Exchanged,
    Mean,
    Operator,
    Payload,
    Spec,
    State,
    Traffic,
)
from .matrix import as_gradient, as_matrix, check_factors, saves, used_rank


@final
@dataclass(frozen=True, repr=False)
class BestLowRank(Operator):
    """The best rank-r approximation of the mean gradient M: mean = U_r U_r^T M, with U_r from the SVD of M.

    A measuring stick, not a compressor: the gradient travels dense, and the SVD takes most of a step's time.
    rest = M_i - U_r U_r^T M_i.

    Args:
        rank: r >= 1; min(n, m, r) is used.
        min_saving: approximate a matrix only where (n + m) r min_saving < n m; 0 approximates every matrix.

    Raises:
        ConfigurationError: a setting is out of range.

    Source: Eckart and Young 1936; the ablation in arXiv:1905.13727, section 4.3.
    """

    rank: int = 4
    min_saving: float = 1.0

    def __post_init__(self) -> None:
        check_factors(self, self.rank, self.min_saving)

    def compresses(self, spec: Spec) -> bool:
        return saves(spec, self.rank, self.min_saving)

    def dense(self, spec: Spec) -> Operator | None:
        # A measuring stick is not passed over for sending as much as a plain average; what it cannot factor is.
        return self if self.compresses(spec) else None

    def exchange(self, grad: Array, state: State, context: Context) -> Exchange:
        ops, spec = context.ops, context.spec
        matrix = as_matrix(grad, spec, ops)
        (average,) = yield [Mean(matrix)]
        # An SVD of infinities raises; the mean below still shows them, as loss scaling expects.
        finite = ops.finite_or_zero_(ops.copy(average))
        basis = ops.leading_left_vectors(finite, used_rank(spec, self.rank))
        mean = ops.matmul(basis, ops.matmul(basis, average), transpose_a=True)
        rest: Array | None = None
        if context.feedback:
            rest = as_gradient(ops.subtract_product_(matrix, basis, ops.matmul(basis, matrix)), spec, ops)
        return Exchanged(as_gradient(mean, spec, ops), rest, state)

    def traffic(self, spec: Spec, world_size: int, step: int) -> Traffic:
        return ((Payload(Mean, spec.size, spec.wide.dtype),),)
