"""RandomLowRank: the mean gradient projected on random directions, drawn alike on all ranks; unbiased."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from ..contract import (
    Array,
    Context,
    Exchange,
    Exchanged,
    Mean,
    Meanwhile,
    Operator,
    Payload,
    Spec,
    State,
    Traffic,
    check_at_least,
)
from .matrix import as_gradient, as_matrix, check_factors, used_rank


@final
@dataclass(frozen=True, repr=False)
class RandomLowRank(Operator):
    """Unbiased rank-r approximation of the mean gradient M (n x m): mean = (M U) U^T.

    U (m x r) is standard normal over sqrt(r), drawn from (seed, name, step) alike on all ranks, so that only M U
    travels: one allreduce of r n numbers. E[U U^T] = I, and the expected squared error is (m + 1)/r ||M||^2. Linear;
    rest = M_i - (M_i U) U^T.

    Args:
        rank: r >= 1; min(n, m, r) is used.
        seed: of U, equal on all ranks.
        min_saving: project a matrix only where r n min_saving < n m; 0 projects every matrix.

    Raises:
        ConfigurationError: a setting is out of range.

    Source: Vogels, Karimireddy, Jaggi 2019 (arXiv:1905.13727), "unbiased rank r".
    """

    rank: int = 4
    seed: int = 0
    min_saving: float = 1.0

    def __post_init__(self) -> None:
        check_factors(self, self.rank, self.min_saving)
        check_at_least(self, "seed", self.seed, 0)

    def compresses(self, spec: Spec) -> bool:
        n, m = spec.matrix_shape
        return len(spec.shape) >= 2 and n * used_rank(spec, self.rank) * self.min_saving < n * m

    def exchange(self, grad: Array, state: State, context: Context) -> Exchange:
        ops, spec = context.ops, context.spec
        matrix = as_matrix(grad, spec, ops)
        rank = used_rank(spec, self.rank)
        key = (self.seed, context.name, context.step)
        u = ops.scale_(ops.normal((rank, spec.matrix_shape[1]), spec.wide.dtype, key), 1.0 / math.sqrt(rank))
        local = ops.matmul(u, matrix, transpose_b=True)

        def rest() -> Array | None:
            if not context.feedback:
                return None
            return as_gradient(ops.subtract_product_(matrix, local, u), spec, ops)

        p, unsent = yield [Mean(local, donate=not context.feedback), Meanwhile(rest)]
        return Exchanged(as_gradient(ops.matmul(p, u, transpose_a=True), spec, ops), unsent, state)

    def traffic(self, spec: Spec, world_size: int, step: int) -> Traffic:
        return ((Payload(Mean, used_rank(spec, self.rank) * spec.matrix_shape[0], spec.wide.dtype),),)
