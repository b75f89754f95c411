"""A method: a published algorithm as one expression over codecs, operators and feedback."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import final

from ..contract import Array, Context, Exchange, Leaves, Operator, Phase, Spec, State, Traffic


class Method(Operator):
    """An operator that is defined by an expression over others; subclasses are as those of `Operator`."""

    @abstractmethod
    def expression(self) -> Operator:
        """Return what this method is made of."""

    @cached_property
    def _made(self) -> Operator:
        """What this method is made of, made once: every step of every unit asks."""
        return self.expression()

    @final
    def compresses(self, spec: Spec) -> bool:
        return self._made.compresses(spec)

    @final
    def dense(self, spec: Spec) -> Operator | None:
        return self._made.dense(spec)

    @final
    def for_parameter(self, name: str, spec: Spec) -> Operator:
        expression = self._made
        chosen = expression.for_parameter(name, spec)
        return self if chosen == expression else chosen

    @property
    @final
    def needs_parameters(self) -> bool:
        return self._made.needs_parameters

    @property
    @final
    def needs_learning_rate(self) -> bool:
        return self._made.needs_learning_rate

    @final
    def phase(self, step: int) -> Phase:
        return self._made.phase(step)

    @property
    @final
    def phase_cycle(self) -> tuple[int, int]:
        return self._made.phase_cycle

    @property
    @final
    def has_momentum(self) -> bool:
        return self._made.has_momentum

    @property
    @final
    def scales(self) -> bool:
        return self._made.scales

    @property
    @final
    def bears_absence(self) -> bool:
        return self._made.bears_absence

    @property
    @final
    def elementwise(self) -> bool:
        return self._made.elementwise

    @property
    @final
    def block_length(self) -> int:
        return self._made.block_length

    @property
    @final
    def unit_bytes(self) -> float:
        return self._made.unit_bytes

    @final
    def leaves(self, spec: Spec, world_size: int) -> Leaves:
        return self._made.leaves(spec, world_size)

    @final
    def exchange(self, grad: Array, state: State, context: Context) -> Exchange:
        return self._made.exchange(grad, state, context)

    @final
    def traffic(self, spec: Spec, world_size: int, step: int) -> Traffic:
        return self._made.traffic(spec, world_size, step)
