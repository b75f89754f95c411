"""measure: the time of whole exchanges by torch optimizers, Horovod's own among them, in turn."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch

from .settings import STOCK, GrowthSettings


@final
@dataclass(frozen=True)
class Growth:
    """One model and one way of exchanging its gradients; seconds are of an exchange, the median.

    Args:
        row: a compressor, or `STOCK`.
        parameters: of the model.
        tensors: of the model.
        workers: that exchanged.
        seconds: from gradients that are there to their means.
        fastest: the shortest.
        slowest: the longest.
        collectives: of ours, an exchange; None for Horovod's own.
    """

    row: str
    parameters: int
    tensors: int
    workers: int
    seconds: float
    fastest: float
    slowest: float
    collectives: float | None


def measure(settings: GrowthSettings, progress: Callable[[str], object] = lambda text: None) -> Iterator[list[Growth]]:
    """Yield the rows of every model: those that grow in parameters, then those that grow in tensors.

    Horovod is initialised; all ranks call it together.
    """
    for parameters in settings.parameters:
        side = max(1, round(math.sqrt(parameters / settings.matrices)))
        shapes = {f"layer{i}.weight": (side, side) for i in range(settings.matrices)}
        progress(f"{parameters:,} parameters")
        yield _rows(settings, shapes)
    for tensors in settings.tensors:
        small = {f"layer{i}.bias": (settings.tensor_bytes // 4,) for i in range(tensors)}
        progress(f"{tensors} tensors")
        yield _rows(settings, small)


def _rows(settings: GrowthSettings, shapes: Mapping[str, tuple[int, ...]]) -> list[Growth]:
    import horovod.torch as stock

    exchanges = {STOCK: _optimizer(None, shapes)} | {name: _optimizer(name, shapes) for name in settings.compressors}
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
        collectives = None
        if row != STOCK:
            collectives = (optimizer.exchange.meter.collectives - before[row]) / settings.repeats
        made.append(
            Growth(
                row=row,
                parameters=sum(math.prod(shape) for shape in shapes.values()),
                tensors=len(shapes),
                workers=stock.size(),
                seconds=statistics.median(seconds[row]),
                fastest=min(seconds[row]),
                slowest=max(seconds[row]),
                collectives=collectives,
            )
        )
    return made


def _optimizer(name: str | None, shapes: Mapping[str, tuple[int, ...]]) -> Any:
    """Return an optimizer whose gradients are there; without a rate, so that no step changes anything."""
    import horovod.torch as stock

    import hvd_compress.torch as hvd

    draw = torch.Generator().manual_seed(stock.rank())
    named = {key: torch.nn.Parameter(torch.zeros(shape)) for key, shape in shapes.items()}
    for parameter in named.values():
        parameter.grad = torch.randn(parameter.shape, generator=draw)
    plain = torch.optim.SGD(named.values(), lr=1e-9)
    if name is None:
        return stock.DistributedOptimizer(plain, named.items())
    return hvd.DistributedOptimizer(plain, named.items(), compression=name)
