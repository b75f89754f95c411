"""measure: the time of whole exchanges by torch optimizers, Horovod's own among them, in turn."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, final

import torch

from ..machine import available_bytes
from ..turns import Turns
from .groups import make_groups
from .point import STOCK, Growth
from .settings import GrowthSettings


@final
@dataclass
class _Found:
    seconds: list[float] = field(default_factory=list)
    collectives: list[int] = field(default_factory=list)


def measure(settings: GrowthSettings, progress: Callable[[str], object] = lambda text: None) -> Iterator[list[Growth]]:
    """Yield the rows of every model: those that grow in parameters, then those that grow in tensors.

    Horovod is initialised; all ranks call it together. Where memory is short for all rows at once, they take turns in
    groups, Horovod's own in each, and what a group has kept is freed before the next.

    Raises:
        ConfigurationError: memory is short for a row alone.
    """
    for parameters in settings.parameters:
        progress(f"{parameters:,} parameters")
        yield _rows(settings, "parameters", settings.layers(parameters))
    for tensors in settings.tensors:
        small = {f"layer{i}.bias": (settings.tensor_bytes // 4,) for i in range(tensors)}
        progress(f"{tensors} tensors")
        yield _rows(settings, "tensors", small)


def _rows(
    settings: GrowthSettings, grown: Literal["parameters", "tensors"], shapes: Mapping[str, tuple[int, ...]]
) -> list[Growth]:
    import horovod.torch as stock

    # Only rank 0's view of memory counts: ranks must agree.
    room = int(stock.broadcast_object(available_bytes(), 0, name="room")) // stock.local_size()
    # One memory for the parameters of all rows: steps hardly change any.
    values = {key: torch.zeros(shape) for key, shape in shapes.items()}
    made = []
    for number, names in enumerate(make_groups(settings.compressors, shapes, stock.size(), room)):
        optimizers = {STOCK: _optimizer(None, values, settings)}
        optimizers |= {name: _optimizer(name, values, settings) for name in names}
        for row, found in _in_turn(settings, optimizers).items():
            exchange = None if row == STOCK else optimizers[row].exchange
            made.append(
                Growth(
                    grown=grown,
                    row=row,
                    parameters=sum(math.prod(shape) for shape in shapes.values()),
                    tensors=len(shapes),
                    workers=stock.size(),
                    group=number,
                    exchanges=len(found.seconds),
                    seconds=statistics.median(found.seconds),
                    fastest=min(found.seconds),
                    slowest=max(found.seconds),
                    collectives=None if exchange is None else statistics.fmean(found.collectives),
                    buckets=None if exchange is None else len(exchange.plan.buckets),
                )
            )
        del optimizers, exchange
        # Optimizers and the hooks on their parameters refer to one another.
        gc.collect()
    return made


def _in_turn(settings: GrowthSettings, optimizers: Mapping[str, Any]) -> dict[str, _Found]:
    import horovod.torch as stock

    found = {row: _Found() for row in optimizers}
    turns = Turns(settings.budget, tuple(optimizers))
    # Ranks measure different times: what those of rank 0 say goes for all.
    while due := stock.broadcast_object(turns.next_round(), 0, name="turns"):
        for row, timed in due.items():
            turns.took(row, _exchange(optimizers[row], found[row] if timed else _Found()))
    return found


def _exchange(optimizer: Any, found: _Found) -> float:
    """Do an exchange together with all other workers, add what it took to what was found, and return its time."""
    import horovod.torch as stock

    meter = optimizer.exchange.meter if hasattr(optimizer, "exchange") else None
    before = 0 if meter is None else meter.collectives
    if stock.size() > 1:
        stock.barrier()
    began = time.perf_counter()
    optimizer.synchronize()
    seconds = time.perf_counter() - began
    found.seconds.append(seconds)
    found.collectives.append(0 if meter is None else meter.collectives - before)
    with optimizer.skip_synchronize():
        optimizer.step()
    return seconds


def _optimizer(name: str | None, values: Mapping[str, torch.Tensor], settings: GrowthSettings) -> Any:
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
    return hvd.DistributedOptimizer(plain, named.items(), compression=name, bucket_megabytes=settings.bucket_megabytes)
