"""Wrapper: what every operator around another compressor passes on."""

from __future__ import annotations

from abc import ABC
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from ..contract import Codec, Leaves, Operator, Phase, Spec, Traffic
from .carry import operator_of


class Wrapper(Operator, ABC):
    """An operator around another compressor, its field `inner`; a subclass changes `exchange` and what it must.

    The inner operator sees gradients of `seen(spec)`; its state is kept under "inner".
    """

    # Whether the wrapper itself does to each element what it would do to it alone.
    by_element: ClassVar[bool] = False

    if TYPE_CHECKING:

        @property
        def inner(self) -> Operator | Codec:
            """The compressor inside."""

    def seen(self, spec: Spec) -> Spec:
        """Return the spec of what the inner operator is given."""
        return spec

    def inner_operator(self, spec: Spec) -> Operator:
        """Return the operator inside, for a gradient of `spec` as it comes to this wrapper."""
        return operator_of(self.inner, self.seen(spec))

    def compresses(self, spec: Spec) -> bool:
        return self.inner_operator(spec).compresses(self.seen(spec))

    def dense(self, spec: Spec) -> Operator | None:
        return self.inner_operator(spec).dense(spec)

    def for_parameter(self, name: str, spec: Spec) -> Operator:
        if isinstance(self.inner, Codec):
            return self
        chosen = self.inner.for_parameter(name, self.seen(spec))
        return self if chosen == self.inner else self.around(chosen)

    def around(self, inner: Operator) -> Operator:
        """Return this wrapper around another operator."""
        return replace(self, inner=inner)  # type: ignore[type-var]

    @property
    def needs_parameters(self) -> bool:
        return isinstance(self.inner, Operator) and self.inner.needs_parameters

    @property
    def needs_learning_rate(self) -> bool:
        return isinstance(self.inner, Operator) and self.inner.needs_learning_rate

    def phase(self, step: int) -> Phase:
        return self.inner.phase(step) if isinstance(self.inner, Operator) else ()

    @property
    def phase_cycle(self) -> tuple[int, int]:
        return self.inner.phase_cycle if isinstance(self.inner, Operator) else (0, 1)

    @property
    def has_momentum(self) -> bool:
        return isinstance(self.inner, Operator) and self.inner.has_momentum

    @property
    def scales(self) -> bool:
        return not self.inner.votes if isinstance(self.inner, Codec) else self.inner.scales

    @property
    def bears_absence(self) -> bool:
        return isinstance(self.inner, Codec) or self.inner.bears_absence

    @property
    def elementwise(self) -> bool:
        asks_for_more = self.needs_parameters or self.needs_learning_rate
        return self.by_element and not asks_for_more and isinstance(self.inner, Operator) and self.inner.elementwise

    @property
    def block_length(self) -> int:
        return self.inner.block_length if self.by_element else 0

    @property
    def unit_bytes(self) -> float:
        return self.inner.unit_bytes if isinstance(self.inner, Operator) else 0.0

    def leaves(self, spec: Spec, world_size: int) -> Leaves:
        return {"inner": self.inner_leaves(spec, world_size)}

    def inner_leaves(self, spec: Spec, world_size: int) -> Leaves:
        """Return the declarations of the inner operator's state."""
        return self.inner_operator(spec).leaves(self.seen(spec), world_size)

    def traffic(self, spec: Spec, world_size: int, step: int) -> Traffic:
        return self.inner_operator(spec).traffic(self.seen(spec), world_size, step)
