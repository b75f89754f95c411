"""More workers: what the exchanges of the model cost, and a model of time fitted to those that were measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ...contract import Spec
from ...description.collectives import fused
from ...exchange import make_plan
from ...exchange.units import LATE
from ...registry import resolve
from .model import Fit, fit, messages_and_bytes
from .point import STOCK, Growth
from .settings import GrowthSettings


def fits(settings: GrowthSettings, measured: Sequence[Growth]) -> dict[str, Fit]:
    """Return the model of every row that was measured with at least three numbers of workers."""
    made = {}
    for row in (STOCK, *settings.compressors):
        points = [
            (*cost(settings, row, growth.parameters, growth.workers), growth.seconds)
            for growth in measured
            if growth.row == row and growth.grown == "workers"
        ]
        if len(points) >= 3:
            made[row] = fit(points)
    return made


def cost(settings: GrowthSettings, row: str, parameters: int, workers: int) -> tuple[float, float]:
    """Return the messages that wait for one another and the bytes a worker sends, of an exchange; see `model`.

    Args:
        settings: of the models.
        row: a compressor, or `STOCK`, which is taken to fuse as our plain averages do.
        parameters: of the model.
        workers: how many.
    """
    specs = [(name, Spec(shape)) for name, shape in settings.layers(parameters).items()]
    compressor = resolve("identity" if row == STOCK else row)
    # Gradients that are asked for apart Horovod joins itself.
    plan = make_plan(compressor, specs, workers, bucket_bytes=1e6 * settings.bucket_megabytes, apart_bytes=math.inf)
    # In the long run some operators do one thing at even steps and another at odd ones.
    found = [messages_and_bytes(fused(plan, workers, step), workers) for step in (LATE, LATE + 1)]
    return sum(messages for messages, _ in found) / 2, sum(nbytes for _, nbytes in found) / 2


def predictions(settings: GrowthSettings, made: Mapping[str, Fit], workers: Sequence[int]) -> list[dict[str, Any]]:
    """Return what the models say of other numbers of workers."""
    return [_prediction(settings, row, model, count) for row, model in made.items() for count in workers]


def _prediction(settings: GrowthSettings, row: str, model: Fit, workers: int) -> dict[str, Any]:
    messages, nbytes = cost(settings, row, settings.parameters[0], workers)
    return {
        "row": row,
        "workers": workers,
        "messages": messages,
        "bytes": nbytes,
        "seconds": model.seconds(messages, nbytes),
        "model": asdict(model),
    }
