"""`bench-growth`: what an exchange costs with more parameters, more tensors and more workers, against Horovod's own.

Parameters and tensors grow within the processes that run it: one, or those that horovodrun starts. Workers grow in
launches of its own.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

NAME = "bench-growth"
_COLUMNS = 140


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
        compressors=tuple(part for part in arguments.compressors.split(",") if part),
        parameters=_numbers(arguments.parameters),
        tensors=_numbers(arguments.tensors),
        repeats=arguments.iters,
    )
    load = os.getloadavg()[0]
    torch.set_num_threads(1)
    hvd.init()
    console = Console(width=max(Console().width, _COLUMNS), quiet=hvd.rank() > 0)
    measured: list[Growth] = []
    for rows in measure(settings):
        console.print(table(rows))
        measured += rows
    predicted = []
    counts = _numbers(arguments.workers) if hvd.size() == 1 and settings.parameters else ()
    if counts:
        found = measure_workers(settings, counts, arguments.limit)
        for count in counts:
            console.print(table([row for row in found if row.workers == count]))
        measured += found
        made = fits(settings, found)
        predicted = predictions(settings, made, _numbers(arguments.predict))
        if made:
            console.print(model_table(made, predicted))
    if arguments.json is not None and hvd.rank() == 0:
        report = {
            "settings": asdict(settings),
            "units": "seconds an exchange; predictions are those of a model",
            "measured": [asdict(row) for row in measured],
            "predicted": predicted,
            "machine": {"cores": os.cpu_count(), "load_before": load},
        }
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part)
