"""describe: what a compressor will send, keep and pass over, before anything is trained."""

from __future__ import annotations

from typing import Any

from ..contract import state_bytes
from ..errors import ConfigurationError
from ..exchange import Plan, Unit, make_plan
from ..exchange.units import LATE
from ..operators import dense_operator
from ..registry import resolve
from .collectives import collectives_of, rounds_of
from .shapes import specs_of_model
from .table import Description, UnitCost


def describe(
    compressor: Any,
    model: Any,
    world_size: int = 2,
    *,
    step: int | None = None,
    allow_larger: bool = False,
    bucket_bytes: float = float("inf"),
) -> Description:
    """Return what a compressor does to a model, unit by unit and in total, from shapes alone.

    Args:
        compressor: an instance, class, factory or name.
        model: a torch module; a Keras model; a mapping of parameter names to arrays or shapes; or (name, `Spec`)
            pairs. An array without element type is float32.
        world_size: number of workers, >= 1.
        step: of which bytes and collectives are told; None for a step after all warm-ups and schedules.
        allow_larger: compress also where that sends more than a plain average.
        bucket_bytes: gradients that travel together, at most about this many bytes.

    Raises:
        ConfigurationError: an argument cannot be honoured.
    """
    if isinstance(world_size, bool) or not isinstance(world_size, int) or world_size < 1:
        raise ConfigurationError(f"world_size={world_size!r}: give at least one worker.")
    plan = make_plan(
        resolve(compressor), specs_of_model(model), world_size, allow_larger=allow_larger, bucket_bytes=bucket_bytes
    )
    return describe_plan(plan, world_size, step)


def describe_plan(plan: Plan, world_size: int, step: int | None = None) -> Description:
    """Return the description of a plan that was made already."""
    # In the long run some operators do one thing at even steps and another at odd ones.
    steps = (LATE, LATE + 1) if step is None else (step,)
    collectives = sum(collectives_of(plan, world_size, s) for s in steps) / len(steps)
    rounds = max(rounds_of(plan, world_size, s) for s in steps)
    units = tuple(_cost(unit, world_size, steps) for unit in plan.units)
    return Description(repr(plan.compressor), world_size, units, collectives, rounds)


def _cost(unit: Unit, world_size: int, steps: tuple[int, ...]) -> UnitCost:
    operator, spec = unit.operator, unit.spec
    return UnitCost(
        name=unit.name,
        parameters=tuple(name for name, _ in unit.parameters),
        spec=spec,
        operator=operator,
        passed_over=unit.passed_over,
        dense_bytes=dense_operator(spec).wire_bytes(spec, world_size),
        wire_bytes=sum(operator.wire_bytes(spec, world_size, step) for step in steps) / len(steps),
        state_bytes=state_bytes(operator.leaves(spec, world_size)),
        rounds=max(len(operator.traffic(spec, world_size, step)) for step in steps),
    )
