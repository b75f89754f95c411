"""`check`: what is installed here, whether training with Horovod can run, and the cure for what is wrong."""

from __future__ import annotations

import argparse
import sys

from rich.console import Console

from .environment import facts, gather, judge, report

NAME = "check"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `check`."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--run", action="store_true", help="also start an allreduce of two processes with every launcher"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the rows; return 1 if training could not run, else 0."""
    found = _gather(arguments.run)
    rows = judge.rows(found)
    if arguments.json:
        print(report.as_json(found, rows))
    else:
        report.show(rows, Console())
    return 0 if judge.usable(rows) else 1


def _gather(with_runs: bool) -> facts.Facts:
    console = Console(stderr=True)
    with console.status("looking at Python, frameworks, Horovod and MPI (5 to 60 seconds)") as status:
        found = gather.gather()
        if with_runs:
            status.update("starting two processes with every launcher (10 to 60 seconds each)")
            found = gather.with_runs(found)
    sys.stderr.flush()
    return found
