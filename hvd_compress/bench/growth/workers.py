"""More workers: what the exchanges of the model cost, and a model of time fitted to those that were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ...contract import Spec
from ...exchange import make_plan
from ...exchange.units import LATE
from ...registry import resolve
from .model import Fit, fit, steps_and_bytes
from .point import STOCK, Growth
from .settings import GrowthSettings


def fits(settings: GrowthSettings, measured: Sequence[Growth]) -> dict[str, Fit]:
    """Return the model of every row that was measured with at least three numbers of workers."""
    made = {}
    for row in (STOCK, *settings.compressors):
        points = [
            (*cost(row, growth.parameters, settings.matrices, growth.workers), growth.seconds)
            for growth in measured
            if growth.row == row and growth.grown == "workers"
        ]
        if len(points) >= 3:
            made[row] = fit(points)
    return made


def cost(row: str, parameters: int, matrices: int, workers: int) -> tuple[float, float]:
    """Return the steps around a ring and the bytes a worker sends, of an exchange in one bucket."""
    side = max(1, round((parameters / matrices) ** 0.5))
    specs = [(f"layer{i}.weight", Spec((side, side))) for i in range(matrices)]
    plan = make_plan(resolve("identity" if row == STOCK else row), specs, workers)
    steps, nbytes = 0, 0.0
    for unit in plan.units:
        own_steps, own_bytes = steps_and_bytes(unit.operator.traffic(unit.spec, workers, LATE), workers)
        # Units of a bucket travel together.
        steps, nbytes = max(steps, own_steps), nbytes + own_bytes
    return float(steps), nbytes


def predictions(settings: GrowthSettings, made: Mapping[str, Fit], workers: Sequence[int]) -> list[dict[str, Any]]:
    """Return what the models say of other numbers of workers."""
    return [
        {
            "row": row,
            "workers": count,
            "seconds": model.seconds(*cost(row, settings.parameters[0], settings.matrices, count)),
            "model": asdict(model),
        }
        for row, model in made.items()
        for count in workers
    ]
