"""`bench-network`: training steps on shaped links against everything a user would pick instead; as root, on Linux.

Every worker has a network namespace and a link of the asked rate; rows take turns within one run. Bytes of the link are
compared with those that we count in steps of their own, where Horovod's coordination is slowed so that it is no part.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys

from rich.console import Console

from .measuring import (
    add_budget,
    add_compressors,
    add_json,
    budget,
    compressors,
    conclude,
    numbers,
    parts,
    save,
    wide_console,
)

NAME = "bench-network"

_DEFAULT = "identity,powersgd:rank=4,powersgd:rank=4:alternate=true,scalecom,distefblocksgd,sketchedsgd"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add models, links, workers and rows."""
    parser.add_argument("--models", default="lstm,transformer,resnet", help="by commas (default: all three)")
    parser.add_argument("--rates", default="100mbit,1gbit,10gbit,unshaped", help="of links, by commas")
    parser.add_argument("--workers", default="2,4", help="numbers of them, by commas (default 2,4)")
    add_compressors(parser, _DEFAULT)
    parser.add_argument(
        "--peers",
        help="by commas; by default all: horovod, horovod:fp16, ddp, ddp:fp16, ddp:bf16, ddp:powersgd4 (DDP's hook), "
        "one-reduction:4 (one factor a step, as epfml/powersgd)",
    )
    add_budget(parser, "step", "row", repeats=10, warmup=4, seconds=5.0)
    parser.add_argument(
        "--limit", type=float, help="seconds for all rows on one kind of link (default 180, and 80 + 2 SECONDS a row)"
    )
    parser.add_argument("--no-bytes", action="store_true", help="leave out the steps whose bytes are counted")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print, table by table."""
    from ..bench.network.measured import Measured
    from ..bench.network.report import as_json, sent_table, table
    from ..bench.network.sent import Sent
    from ..bench.network.suite import PEERS, NetworkSettings, count_bytes, run_suite
    from ..bench.targets import network_targets

    peers = PEERS if arguments.peers is None else parts(arguments.peers)
    settings = NetworkSettings(
        workloads=parts(arguments.models),
        rates=parts(arguments.rates),
        workers=numbers(arguments.workers),
        rows=(*peers, *(f"ours:{name}" for name in compressors(arguments.compressors))),
        budget=budget(arguments),
        limit=arguments.limit,
    )
    # Ended politely, it takes its networks away.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    load = os.getloadavg()[0]
    console = wide_console()
    measured: list[Measured] = []
    counted: list[Sent] = []

    def keep() -> None:
        # It takes long: what is measured stays, whatever becomes of the rest.
        save(arguments, as_json(settings, measured, counted, load), network_targets(measured, counted))

    with Console(stderr=True).status("") as status:
        for rows in run_suite(settings, lambda text: status.update(f"measuring {text}")):
            console.print(table(rows))
            measured += rows
            keep()
        for sent in () if arguments.no_bytes else count_bytes(settings, lambda text: status.update(f"counting {text}")):
            console.print(sent_table(sent))
            counted += sent
            keep()
    conclude(console, arguments, as_json(settings, measured, counted, load), network_targets(measured, counted))
    return 0
