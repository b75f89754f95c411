"""A method: a published algorithm as one expression over codecs, operators and feedback."""

from __future__ import annotations

from abc import abstractmethod
from typing import final

from ..contract import Array, Context, Exchange, Leaves, Operator, Phase, Spec, State, Traffic


class Method(Operator):
    """An operator that is defined by an expression over others; subclasses are as those of `Operator`."""

    @abstractmethod
    def expression(self) -> Operator:
        """Return what this method is made of."""

    @final
    def compresses(self, spec: Spec) -> bool:
        return self.expression().compresses(spec)

    @final
    def dense(self, spec: Spec) -> Operator | None:
        return self.expression().dense(spec)

    @final
    def for_parameter(self, name: str, spec: Spec) -> Operator:
        expression = self.expression()
        chosen = expression.for_parameter(name, spec)
        return self if chosen == expression else chosen

    @property
    @final
    def needs_parameters(self) -> bool:
        return self.expression().needs_parameters

    @property
    @final
    def needs_learning_rate(self) -> bool:
        return self.expression().needs_learning_rate

    @final
    def phase(self, step: int) -> Phase:
        return self.expression().phase(step)

    @property
    @final
    def phase_cycle(self) -> tuple[int, int]:
        return self.expression().phase_cycle

    @property
    @final
    def has_momentum(self) -> bool:
        return self.expression().has_momentum

    @property
    @final
    def scales(self) -> bool:
        return self.expression().scales

    @property
    @final
    def bears_absence(self) -> bool:
        return self.expression().bears_absence

    @property
    @final
    def unit_bytes(self) -> float:
        return self.expression().unit_bytes

    @final
    def leaves(self, spec: Spec, world_size: int) -> Leaves:
        return self.expression().leaves(spec, world_size)

    @final
    def exchange(self, grad: Array, state: State, context: Context) -> Exchange:
        return self.expression().exchange(grad, state, context)

    @final
    def traffic(self, spec: Spec, world_size: int, step: int) -> Traffic:
        return self.expression().traffic(spec, world_size, step)
