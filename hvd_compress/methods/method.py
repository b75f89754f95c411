"""A method: a published algorithm as one expression over codecs, operators and feedback."""

from __future__ import annotations

from abc import abstractmethod
from typing import final

from ..contract import Array, Context, Exchange, Leaves, Operator, Spec, State, Traffic


class Method(Operator):
    """An operator that is defined by an expression over others; subclasses are as those of `Operator`."""

    @abstractmethod
    def expression(self) -> Operator:
        """Return what this method is made of."""

    @final
    def compresses(self, spec: Spec) -> bool:
        return self.expression().compresses(spec)

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
