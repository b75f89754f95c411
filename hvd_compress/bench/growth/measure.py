"""measure: the time of whole exchanges by torch optimizers, Horovod's own among them, in turn."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import torch

from .point import STOCK, Growth
from .settings import GrowthSettings


def measure(settings: GrowthSettings, progress: Callable[[str], object] = lambda text: None) -> Iterator[list[Growth]]:
    """Yield the rows of every model: those that grow in parameters, then those that grow in tensors.

    Horovod is initialised; all ranks call it together.
    """
    for parameters in settings.parameters:
        side = max(1, round(math.sqrt(parameters / settings.matrices)))
        shapes = {f"layer{i}.weight": (side, side) for i in range(settings.matrices)}
        progress(f"{parameters:,} parameters")
        yield _rows(settings, "parameters", shapes)
    for tensors in settings.tensors:
        small = {f"layer{i}.bias": (settings.tensor_bytes // 4,) for i in range(tensors)}
        progress(f"{tensors} tensors")
        yield _rows(settings, "tensors", small)


def _rows(
    settings: GrowthSettings, grown: Literal["parameters", "tensors"], shapes: Mapping[str, tuple[int, ...]]
) -> list[Growth]:
    import horovod.torch as stock

    # One memory for the parameters of all rows: steps hardly change any.
    values = {key: torch.zeros(shape) for key, shape in shapes.items()}
    exchanges = {STOCK: _optimizer(None, values)} | {name: _optimizer(name, values) for name in settings.compressors}
    seconds: dict[str, list[float]] = {row: [] for row in exchanges}
    before: dict[str, int] = {}
    for repeat in range(settings.warmup + settings.repeats):
        for row, optimizer in exchanges.items():
            if repeat == settings.warmup and row != STOCK:
                before[row] = optimizer.exchange.meter.collectives
            if stock.size() > 1:
                stock.barrier()
            began = time.perf_counter()
            optimizer.synchronize()
            if repeat >= settings.warmup:
                seconds[row].append(time.perf_counter() - began)
            with optimizer.skip_synchronize():
                optimizer.step()
    made = []
    for row, optimizer in exchanges.items():
        collectives, buckets = None, None
        if row != STOCK:
            collectives = (optimizer.exchange.meter.collectives - before[row]) / settings.repeats
            buckets = len(optimizer.exchange.plan.buckets)
        made.append(
            Growth(
                grown=grown,
                row=row,
                parameters=sum(math.prod(shape) for shape in shapes.values()),
                tensors=len(shapes),
                workers=stock.size(),
                seconds=statistics.median(seconds[row]),
                fastest=min(seconds[row]),
                slowest=max(seconds[row]),
                collectives=collectives,
                buckets=buckets,
            )
        )
    return made


def _optimizer(name: str | None, values: Mapping[str, torch.Tensor]) -> Any:
    """Return an optimizer whose gradients are there; with a rate that makes no step change much."""
    import horovod.torch as stock

    import hvd_compress.torch as hvd

    draw = torch.Generator().manual_seed(stock.rank())
    named = {key: torch.nn.Parameter(value) for key, value in values.items()}
    for parameter in named.values():
        parameter.grad = torch.randn(parameter.shape, generator=draw)
    plain = torch.optim.SGD(named.values(), lr=1e-9)
    if name is None:
        return stock.DistributedOptimizer(plain, named.items())
    return hvd.DistributedOptimizer(plain, named.items(), compression=name)
