"""`bench-growth`: what an exchange costs with more parameters, more tensors and more workers, against Horovod's own.

Parameters and tensors grow within the processes that run it: one, or those that horovodrun starts. Workers grow in
launches of its own.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from pathlib import Path

from .measuring import numbers, parts, wide_console, write_json

NAME = "bench-growth"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add what grows."""
    parser.add_argument("--compressors", default="identity,powersgd:rank=4,scalecom,distefblocksgd,sketchedsgd")
    parser.add_argument("--parameters", default="1000000,10000000,100000000", help="numbers of them, by commas")
    parser.add_argument("--tensors", default="10,100,1000,2000", help="numbers of tensors of 4 KB, by commas")
    parser.add_argument("--workers", default="2,4,8,16", help="with the first number of parameters; none: leave out")
    parser.add_argument("--predict", default="32,128,512", help="numbers of workers for the model, by commas")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for a launch (default 600)")
    parser.add_argument("-n", "--iters", type=int, default=7, help="timed exchanges of each (default 7)")
    parser.add_argument("--json", type=Path, help="write all numbers into this file")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print, table by table."""
    import torch

    import hvd_compress.torch as hvd

    from ..bench.growth.measure import Growth, measure
    from ..bench.growth.report import model_table, table
    from ..bench.growth.settings import GrowthSettings
    from ..bench.growth.workers import fits, measure_workers, predictions

    settings = GrowthSettings(
        compressors=parts(arguments.compressors),
        parameters=numbers(arguments.parameters),
        tensors=numbers(arguments.tensors),
        repeats=arguments.iters,
    )
    load = os.getloadavg()[0]
    torch.set_num_threads(1)
    hvd.init()
    console = wide_console(quiet=hvd.rank() > 0)
    measured: list[Growth] = []
    for rows in measure(settings):
        console.print(table(rows))
        measured += rows
    predicted = []
    counts = numbers(arguments.workers) if hvd.size() == 1 and settings.parameters else ()
    if counts:
        found = measure_workers(settings, counts, arguments.limit)
        for count in counts:
            console.print(table([row for row in found if row.workers == count]))
        measured += found
        made = fits(settings, found)
        predicted = predictions(settings, made, numbers(arguments.predict))
        if made:
            console.print(model_table(made, predicted))
    if hvd.rank() == 0:
        report = {
            "settings": asdict(settings),
            "units": "seconds an exchange; predictions are those of a model",
            "measured": [asdict(row) for row in measured],
            "predicted": predicted,
            "machine": {"cores": os.cpu_count(), "load_before": load},
        }
        write_json(arguments.json, report)
    return 0
