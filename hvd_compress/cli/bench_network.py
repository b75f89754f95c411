"""`bench-network`: training steps on shaped links against everything a user would pick instead; as root, on Linux."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from rich.console import Console

from .measuring import numbers, parts, wide_console, write_json

NAME = "bench-network"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add models, links, workers and rows."""
    parser.add_argument("--models", default="lstm,transformer,resnet", help="by commas (default: all three)")
    parser.add_argument("--rates", default="100mbit,1gbit,10gbit,unshaped", help="of links, by commas")
    parser.add_argument("--workers", default="2,4", help="numbers of them, by commas (default 2,4)")
    parser.add_argument("--compressors", default="powersgd:rank=4,scalecom", help="names of `list`, by commas")
    parser.add_argument("--peers", help="by commas; by default Horovod dense and fp16, DDP dense, fp16, bf16, PowerSGD")
    parser.add_argument("-n", "--iters", type=int, default=12, help="timed steps of each row (default 12)")
    parser.add_argument("-w", "--warmup-iters", type=int, default=4, help="steps before them (default 4)")
    parser.add_argument("--json", type=Path, help="write all numbers into this file")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print, table by table."""
    from ..bench.network.report import table
    from ..bench.network.suite import PEERS, Measured, NetworkSettings, as_json, run_suite

    peers = PEERS if arguments.peers is None else parts(arguments.peers)
    settings = NetworkSettings(
        workloads=parts(arguments.models),
        rates=parts(arguments.rates),
        workers=numbers(arguments.workers),
        rows=(*peers, *(f"ours:{name}" for name in parts(arguments.compressors))),
        warmup=arguments.warmup_iters,
        repeats=arguments.iters,
    )
    load = os.getloadavg()[0]
    console = wide_console()
    measured: list[Measured] = []
    with Console(stderr=True).status("") as status:
        for rows in run_suite(settings, lambda text: status.update(f"measuring {text}")):
            console.print(table(rows))
            measured += rows
    write_json(arguments.json, as_json(settings, measured, load))
    return 0
