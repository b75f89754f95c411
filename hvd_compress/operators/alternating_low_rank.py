"""AlternatingLowRank: half a subspace iteration a step, in one allreduce of one thin factor."""

from __future__ import annotations

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
    Phase,
    Scope,
    Spec,
    State,
    Traffic,
    check_at_least,
)
from .matrix import as_gradient, as_matrix, check_factors, free_matrix, live_rows, saves, shows_finite, used_rank


@final
@dataclass(frozen=True, repr=False)
class AlternatingLowRank(Operator):
    """Project the mean gradient M on the last factor, from the right at even steps and from the left at odd ones.

    even: Q = orth(Q); P = M Q; mean = P Q^T; rest = M_i - M_i Q Q^T.
    odd:  P = orth(P); Q = M^T P; mean = P Q^T; rest = M_i - P P^T M_i.

    One dependent round a step where `LowRank` has two, and about half its bytes; linear like it.

    Args:
        rank: r >= 1; min(n, m, r) is used.
        min_saving: factor a matrix only where (n + m) r min_saving < n m; 0 factors every matrix.
        seed: of the first Q, equal on all ranks.

    Raises:
        ConfigurationError: a setting is out of range.

    Source: Vogels, Karimireddy, Jaggi 2020 (arXiv:2008.01425), Algorithm 2.
    """

    rank: int = 4
    min_saving: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_factors(self, self.rank, self.min_saving)
        check_at_least(self, "seed", self.seed, 0)

    def compresses(self, spec: Spec) -> bool:
        return saves(spec, self.rank, self.min_saving)

    def leaves(self, spec: Spec, world_size: int) -> Leaves:
        (n, m), dtype = spec.matrix_shape, spec.wide.dtype
        right = Leaf((used_rank(spec, self.rank), m), dtype, Scope.REPLICATED, Fill.NORMAL, self.seed)
        return {"p": Leaf((used_rank(spec, self.rank), n), dtype, Scope.REPLICATED), "q": right, "q_start": right}

    def exchange(self, grad: Array, state: State, context: Context) -> Exchange:
        ops, spec, even = context.ops, context.spec, context.built_for % 2 == 0
        matrix = as_matrix(grad, spec, ops)
        factor = live_rows(state["q"], state["q_start"], ops) if even else live_rows(state["p"], 0.0, ops)
        (basis,) = yield [Batched("orthonormal_rows", factor)]
        local = ops.matmul(basis, matrix, transpose_b=even)

        def sides(found: Array) -> tuple[Array, Array]:
            return (found, basis) if even else (basis, found)

        def rest() -> Array | None:
            return ops.subtract_product_(matrix, *sides(local)) if context.feedback else None

        factor, unsent = yield [Mean(local), Meanwhile(rest)]
        left, right = sides(factor)
        mean = ops.matmul(left, right, transpose_a=True, out=free_matrix(context, matrix))
        if unsent is not None:
            unsent = as_gradient(unsent, spec, ops)
        kept = {**state, "p" if even else "q": ops.finite_or_zero_(factor)}
        finite = unsent is not None and shows_finite(local, ops)
        return Exchanged(as_gradient(mean, spec, ops), unsent, kept, rest_is_finite=finite)

    def phase(self, step: int) -> Phase:
        return step % 2

    @property
    def phase_cycle(self) -> tuple[int, int]:
        return (0, 2)

    def traffic(self, spec: Spec, world_size: int, step: int) -> Traffic:
        side = spec.matrix_shape[step % 2]
        return ((Payload(Mean, used_rank(spec, self.rank) * side, spec.wide.dtype),),)
