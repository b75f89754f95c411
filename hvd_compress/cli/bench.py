"""`bench`: what compressors cost, stage by stage, as multiples of a copy of the gradient.

Alone it measures one process without a network; under horovodrun (torch, TensorFlow) or mpirun (NumPy) with one.
"""

from __future__ import annotations

import argparse
import os

from rich.console import Console

from ..bench.micro import MicroSettings, Point, measure
from ..bench.micro.report import as_json, table
from ..bench.micro.settings import DEVICES, LIBRARIES
from ..bench.micro.world import make_world
from ..bench.sizes import parse_size, size_range
from ..bench.targets import micro_targets
from ..contract import GRADIENT_DTYPES
from .measuring import add_compressors, add_json, compressors, conclude, wide_console

NAME = "bench"

_DEFAULT = (
    "identity,fp16,bf16,powersgd,powersgd:rank=1,powersgd:alternate=true,distefblocksgd,efsignsgd,qsgd,terngrad,memsgd,dgc,gtopk,scalecom,"
    "sketchedsgd,codec:blocksign,codec:qsgd,codec:topk:selection=chunked"
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add what to measure, in the manner of nccl-tests."""
    add_compressors(parser, _DEFAULT, "; codec:NAME: a codec by itself")
    parser.add_argument("-b", "--minbytes", default="4K", help="smallest gradient (default 4K)")
    parser.add_argument("-e", "--maxbytes", default="64M", help="largest gradient (default 64M)")
    parser.add_argument("-f", "--stepfactor", type=int, default=16, help="from one size to the next (default 16)")
    parser.add_argument("-n", "--iters", type=int, default=15, help="timed exchanges of each (default 15)")
    parser.add_argument("-w", "--warmup-iters", type=int, default=3, help="exchanges before them (default 3)")
    parser.add_argument("-d", "--datatype", choices=GRADIENT_DTYPES, default="float32", help="element type")
    parser.add_argument("--library", choices=LIBRARIES, default="torch", help="whose arrays (default torch)")
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="that they are on (default cpu)")
    parser.add_argument("-t", "--threads", type=int, default=1, help="of the library, on the CPU (default 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the gradients (default 0)")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    settings = MicroSettings(
        compressors=compressors(arguments.compressors),
        sizes=size_range(parse_size(arguments.minbytes), parse_size(arguments.maxbytes), arguments.stepfactor),
        library=arguments.library,
        device=arguments.device,
        dtype=arguments.datatype,
        warmup=arguments.warmup_iters,
        repeats=arguments.iters,
        seed=arguments.seed,
    )
    load = os.getloadavg()[0]
    world = make_world(settings.library, settings.device, arguments.threads)
    points: list[Point] = []
    with Console(stderr=True, quiet=world.rank > 0).status("measuring") as status:
        for point in measure(settings, world):
            points.append(point)
            status.update(f"measured {len(points)} of {len(settings.sizes) * len(settings.compressors)}")
    if world.rank == 0:
        console = wide_console()
        console.print(table(points, settings.library, settings.device, settings.dtype, world.size))
        report = as_json(points, settings, world.size, load)
        conclude(console, arguments, report, micro_targets(points, world.size))
    return 0
