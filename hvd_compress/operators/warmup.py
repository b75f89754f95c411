"""Warmup: travel dense for the first steps, then compress."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ..contract import (
    Array,
    Codec,
    Context,
    Exchange,
    Leaves,
    Operator,
    Spec,
    State,
    Traffic,
    check_at_least,
    check_compressor,
)
from .carry import dense_operator, operator_of


@final
@dataclass(frozen=True, repr=False)
class Warmup(Operator):
    """Average the whole gradient for the first `steps` steps, then do what `then` does.

    The state of `then` stays untouched meanwhile; its residual starts from zero when it takes over.

    Args:
        steps: number of dense steps, >= 0.
        then: an operator or codec.

    Raises:
        ConfigurationError: steps is negative.
    """

    steps: int
    then: Operator | Codec

    def __post_init__(self) -> None:
        check_at_least(self, "steps", self.steps, 0)
        check_compressor(self, self.then)

    def compresses(self, spec: Spec) -> bool:
        return operator_of(self.then, spec).compresses(spec)

    @property
    def unit_bytes(self) -> float:
        return self.then.unit_bytes if isinstance(self.then, Operator) else 0.0

    def leaves(self, spec: Spec, world_size: int) -> Leaves:
        return operator_of(self.then, spec).leaves(spec, world_size)

    def exchange(self, grad: Array, state: State, context: Context) -> Exchange:
        spec = context.spec
        operator = operator_of(self.then, spec) if context.step >= self.steps else dense_operator(spec)
        return operator.exchange(grad, state, context)

    def traffic(self, spec: Spec, world_size: int, step: int) -> Traffic:
        operator = operator_of(self.then, spec) if step >= self.steps else dense_operator(spec)
        return operator.traffic(spec, world_size, step)
