"""Phases: the few ways in which the exchange of a plan is built, for drivers that build it once for many steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from ..contract import Operator, Phase
from .plan import Plan


@final
@dataclass(frozen=True)
class Phases:
    """Every way in which the exchange of a plan is built, by the first step that is built so.

    Args:
        operators: the different operators of the plan.
        first_steps: by phase number.
    """

    operators: tuple[Operator, ...]
    first_steps: tuple[int, ...]

    @classmethod
    def of(cls, plan: Plan) -> Phases:
        """Return the phases of a plan."""
        operators = tuple(dict.fromkeys(unit.operator for unit in plan.units))
        cycles = [operator.phase_cycle for operator in operators]
        start, period = max((s for s, _ in cycles), default=0), math.lcm(*(p for _, p in cycles))
        found: dict[Phase, int] = {}
        for step in range(start + period):
            found.setdefault(_phase(operators, step), step)
        return cls(operators, tuple(found.values()))

    def number(self, step: int) -> int:
        """Return the number of the phase that a step is in."""
        phase = _phase(self.operators, step)
        return next(i for i, first in enumerate(self.first_steps) if _phase(self.operators, first) == phase)


def _phase(operators: tuple[Operator, ...], step: int) -> tuple[Phase, ...]:
    return tuple(operator.phase(step) for operator in operators)
