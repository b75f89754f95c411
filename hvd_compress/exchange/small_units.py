"""SmallUnits: many small gradients whose operator asks for nothing but elements, exchanged as one."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import final

from ..contract import Array, Operator, Spec
from ..ops import ArrayOps
from .joining import by_parameter
from .units import SMALL, Unit


@final
class SmallUnits:
    """Small units of one bucket, one element type and one elementwise operator (`Operator.elementwise`).

    Such an operator does not ask where one gradient ends and the next begins; only bytes are counted for each. What
    it remembers is as flat as the gradients are.

    Args:
        units: at least one.
    """

    def __init__(self, units: Sequence[Unit]) -> None:
        self.units = tuple(units)
        self.name = f"{units[0].name}..{units[-1].name} by {units[0].operator!r}"
        self.sizes = tuple(unit.spec.size for unit in units)
        self.spec = Spec((sum(self.sizes),), units[0].spec.dtype)
        self.operator = units[0].operator
        self.remembers = bool(self.operator.leaves(self.spec, world_size=1))

    def without(self, names: Container[str]) -> list[SmallUnits]:
        """Return the units but those of such parameters, where units remember something; none if one is left."""
        left = [u for u in self.units if not self.remembers or all(name not in names for name, _ in u.parameters)]
        return [SmallUnits(left)] if 1 < len(left) < len(self.units) else [self] * (len(left) > 1)

    def join(self, found: Sequence[tuple[Array, ArrayOps]]) -> list[tuple[SmallUnits, Array, ArrayOps]]:
        """Return the gradients as one flat array, or one for each device that they are on, and the units of each.

        Args:
            found: gradient and array operations of every unit.
        """
        places: dict[ArrayOps, list[tuple[Unit, Array]]] = {}
        for unit, (grad, ops) in zip(self.units, found, strict=True):
            places.setdefault(ops, []).append((unit, ops.flatten(grad)))
        return [
            (
                self if len(places) == 1 else SmallUnits([unit for unit, _ in members]),
                ops.concat([part for _, part in members]),
                ops,
            )
            for ops, members in places.items()
        ]

    def split(self, mean: Array, ops: ArrayOps) -> dict[str, Array]:
        """Return the mean gradients by parameter name."""
        pieces = ops.split(mean, self.sizes)
        found: dict[str, Array] = {}
        for unit, piece in zip(self.units, pieces, strict=True):
            found.update(by_parameter(unit, ops.reshape(piece, unit.spec.shape)))
        return found


def small_units(units: Sequence[Unit]) -> list[SmallUnits]:
    """Return the groups, of at least two units each, that some of a bucket's units form."""
    groups: dict[tuple[Operator, str], list[Unit]] = {}
    for unit in units:
        if unit.operator.elementwise and 0 < unit.spec.nbytes <= SMALL:
            groups.setdefault((unit.operator, unit.spec.dtype), []).append(unit)
    return [SmallUnits(group) for group in groups.values() if len(group) > 1]
