"""Warmup: travel dense for the first steps, then compress."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, final

from ..contract import (
    Array,
    Codec,
    Context,
    Exchange,
    Leaves,
    Operator,
    Phase,
    Spec,
    State,
    Traffic,
    check_at_least,
    check_compressor,
)
from .carry import dense_stand_in
from .wrapper import Wrapper


@final
@dataclass(frozen=True, repr=False)
class Warmup(Wrapper):
    """Average the whole gradient for the first `steps` steps, then do what `then` does.

    The state of `then` stays untouched meanwhile; its residual starts from zero when it takes over. Where an
    average is not what the update of `then` means, the first steps do what means the same (`Operator.dense`).

    Args:
        steps: number of dense steps, >= 0.
        then: an operator or codec.

    Raises:
        ConfigurationError: steps is negative.
    """

    by_element: ClassVar[bool] = True
    steps: int
    then: Operator | Codec

    def __post_init__(self) -> None:
        check_at_least(self, "steps", self.steps, 0)
        check_compressor(self, self.then)

    @property
    def inner(self) -> Operator | Codec:
        """The compressor that takes over."""
        return self.then

    def around(self, inner: Operator) -> Warmup:
        return replace(self, then=inner)

    def leaves(self, spec: Spec, world_size: int) -> Leaves:
        first = dense_stand_in(self.inner_operator(spec), spec).leaves(spec, world_size)
        return {**self.inner_leaves(spec, world_size), **({"first": first} if first else {})}

    def exchange(self, grad: Array, state: State, context: Context) -> Exchange:
        operator = self._at(context.spec, context.built_for)
        inner = {key: value for key, value in state.items() if key != "first"}
        if context.built_for >= self.steps:
            result = yield from operator.exchange(grad, inner, context)
            return replace(result, state={**state, **result.state})
        result = yield from operator.exchange(grad, state.get("first", {}), context)
        return replace(result, state={**inner, **({"first": result.state} if "first" in state else {})})

    def traffic(self, spec: Spec, world_size: int, step: int) -> Traffic:
        return self._at(spec, step).traffic(spec, world_size, step)

    def phase(self, step: int) -> Phase:
        return (step >= self.steps, super().phase(step) if step >= self.steps else ())

    @property
    def phase_cycle(self) -> tuple[int, int]:
        start, period = super().phase_cycle
        return max(start, self.steps), period

    def _at(self, spec: Spec, step: int) -> Operator:
        inner = self.inner_operator(spec)
        return inner if step >= self.steps else dense_stand_in(inner, spec)
