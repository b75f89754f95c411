"""LowRank: one step of subspace iteration on the mean gradient, in two allreduces of thin factors."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import final

from ..contract import (
    Array,
    Batched,
    Context,
    Exchange,
    Exchanged,
    Fill,
    Leaf,
    Leaves,
    Mean,
    Meanwhile,
    Operator,
    Payload,
    Results,
    Round,
    Scope,
    Spec,
    State,
    Traffic,
    check_at_least,
)
from ..ops import ArrayOps
from .matrix import as_gradient, as_matrix, check_factors, free_matrix, live_rows, saves, shows_finite, used_rank


@final
@dataclass(frozen=True, repr=False)
class LowRank(Operator):
    """Rank-r approximation of the mean gradient M = 1/W sum_i M_i.

    P = orth(M Q); Q = M^T P; mean = P Q^T = P P^T M; this rank contributed P P^T M_i, so rest = M_i - P P^T M_i.

    Everything is linear in the gradients: W workers give what one worker with the mean gradient gives. The factors
    are kept transposed (r x n, r x m), row-major, which is the faster product. Columns of Q that are zero, as after
    a zero gradient, or not finite, are drawn anew: otherwise the layer would never transmit again.

    Args:
        rank: r >= 1; min(n, m, r) is used.
        warm_start: start from the Q of the step before.
        resample: without warm start, draw Q anew at every step instead of using the first one always.
        power_iterations: products with M M^T a step, >= 1; each costs two more rounds.
        min_saving: factor a matrix only where (n + m) r min_saving < n m; 0 factors every matrix.
        seed: of Q, equal on all ranks.

    Raises:
        ConfigurationError: a setting is out of range.

    Source: Vogels, Karimireddy, Jaggi 2019 (arXiv:1905.13727), Algorithm 1.
    """

    rank: int = 4
    warm_start: bool = True
    resample: bool = True
    power_iterations: int = 1
    min_saving: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_factors(self, self.rank, self.min_saving)
        check_at_least(self, "power_iterations", self.power_iterations, 1)
        check_at_least(self, "seed", self.seed, 0)

    def compresses(self, spec: Spec) -> bool:
        return saves(spec, self.rank, self.min_saving)

    def leaves(self, spec: Spec, world_size: int) -> Leaves:
        _, m = spec.matrix_shape
        factor = Leaf((used_rank(spec, self.rank), m), spec.wide.dtype, Scope.REPLICATED, Fill.NORMAL, self.seed)
        return {"q": factor, "q_start": factor} if self.warm_start else {"q_start": factor}

    def exchange(self, grad: Array, state: State, context: Context) -> Exchange:
        ops, spec = context.ops, context.spec
        matrix = as_matrix(grad, spec, ops)
        q = self._starting_factor(state, ops, context)
        rest, finite = None, False
        for iteration in range(self.power_iterations):
            if iteration:
                q = live_rows(q, state["q_start"], ops)
            (p,) = yield [Mean(ops.matmul(q, matrix, transpose_b=True), donate=True)]
            (p,) = yield [Batched("orthonormal_rows", p)]
            last = iteration == self.power_iterations - 1
            q, rest, finite = yield from _mean_factor(p, matrix, context.feedback and last, ops)
        mean = ops.matmul(p, q, transpose_a=True, out=free_matrix(context, matrix))
        if rest is not None:
            rest = as_gradient(rest, spec, ops)
        kept = {"q": ops.finite_or_zero_(q), "q_start": state["q_start"]} if self.warm_start else state
        return Exchanged(as_gradient(mean, spec, ops), rest, kept, rest_is_finite=finite)

    def traffic(self, spec: Spec, world_size: int, step: int) -> Traffic:
        (n, m), r, dtype = spec.matrix_shape, used_rank(spec, self.rank), spec.wide.dtype
        return ((Payload(Mean, r * n, dtype),), (Payload(Mean, r * m, dtype),)) * self.power_iterations

    def _starting_factor(self, state: State, ops: ArrayOps, context: Context) -> Array:
        first = state["q_start"]
        if self.warm_start:
            return live_rows(state["q"], first, ops)
        if self.resample:
            return ops.normal(ops.shape(first), ops.dtype(first), (self.seed, context.name, context.step))
        return first


def _mean_factor(
    p: Array, matrix: Array, keep_rest: bool, ops: ArrayOps
) -> Generator[Round, Results, tuple[Array, Array | None, bool]]:
    """Yield for the mean of P^T M_i; return it with M_i - P P^T M_i, and whether that is known to be finite.

    The rest is found from the local factor meanwhile.
    """
    q = ops.matmul(p, matrix)
    if not keep_rest:
        (q,) = yield [Mean(q, donate=True)]
        return q, None, False
    mean, rest = yield [Mean(q), Meanwhile(lambda: ops.subtract_product_(matrix, p, q))]
    return mean, rest, shows_finite(q, ops)
