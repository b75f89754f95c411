"""`bench-growth`: what an exchange costs with more parameters, more tensors and more workers, against Horovod's own.

It starts workers on this machine itself, which may outnumber the cores; under horovodrun it measures with those that
run it. What still more workers would take is said by a model, fitted to the measured points.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Console

from ..errors import ConfigurationError
from .measuring import (
    add_budget,
    add_compressors,
    add_json,
    budget,
    compressors,
    conclude,
    numbers,
    save,
    wide_console,
)

if TYPE_CHECKING:
    from ..bench.growth.point import Growth
    from ..bench.growth.settings import GrowthSettings

NAME = "bench-growth"

_DEFAULT = "identity,powersgd:rank=4,scalecom,distefsgd,distefblocksgd,sketchedsgd"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add what grows."""
    add_compressors(parser, _DEFAULT)
    parser.add_argument("--parameters", default="1000000,10000000,100000000", help="numbers of them, by commas")
    parser.add_argument("--tensors", default="10,100,1000,2000", help="numbers of tensors of 4 KB, by commas")
    parser.add_argument(
        "--np", type=int, default=2, help="workers where these grow (default 2); with 1, Horovod exchanges nothing"
    )
    parser.add_argument("--workers", default="2,4,8,16", help="with the first number of parameters; none: leave out")
    parser.add_argument("--predict", default="32,128,512", help="numbers of workers for the model, by commas")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for a launch (default 600)")
    add_budget(parser, "exchange", "row", repeats=25, warmup=4, seconds=4.0)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print, table by table."""
    import torch

    import hvd_compress.torch as hvd

    from ..bench.growth.report import as_json, model_table, table
    from ..bench.growth.settings import GrowthSettings
    from ..bench.growth.workers import fits, predictions
    from ..bench.targets import growth_targets

    settings = GrowthSettings(
        compressors=compressors(arguments.compressors),
        parameters=numbers(arguments.parameters),
        tensors=numbers(arguments.tensors),
        budget=budget(arguments),
    )
    counts, asked = numbers(arguments.workers), numbers(arguments.predict)
    if arguments.np < 1 or any(count < 2 for count in counts):
        raise ConfigurationError(f"--np {arguments.np}, --workers {arguments.workers}: give at least 1 and 2.")
    load = os.getloadavg()[0]
    torch.set_num_threads(1)
    hvd.init()
    console = wide_console(quiet=hvd.rank() > 0)
    measured: list[Growth] = []
    with Console(stderr=True, quiet=hvd.rank() > 0).status("measuring"):
        for rows in _measured(settings, hvd.size(), arguments.np, counts, arguments.limit):
            console.print(table(rows))
            measured += rows
            if hvd.rank() == 0:
                save(arguments, as_json(settings, measured, [], load), growth_targets(measured))
    made = fits(settings, measured)
    predicted = predictions(settings, made, asked)
    if predicted:
        console.print(model_table(made, predicted))
    if hvd.rank() == 0:
        conclude(console, arguments, as_json(settings, measured, predicted, load), growth_targets(measured))
    return 0


def _measured(
    settings: GrowthSettings, size: int, workers: int, counts: tuple[int, ...], limit: float
) -> Iterator[list[Growth]]:
    """Yield the rows of every model: here, or in launches of several workers where this process is alone."""
    from ..bench.growth.launching import measure_launched, measure_workers
    from ..bench.growth.measure import measure

    if size > 1 or workers == 1:
        yield from measure(settings)
    else:
        # A launch a model: tables come one by one, and the limit is for each.
        for count in settings.parameters:
            yield measure_launched(replace(settings, parameters=(count,), tensors=()), workers, limit)
        for count in settings.tensors:
            yield measure_launched(replace(settings, parameters=(), tensors=(count,)), workers, limit)
    if size == 1 and settings.parameters:
        for count in counts:
            yield measure_workers(settings, count, limit)
