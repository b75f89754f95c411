"""The command line `python -m hvd_compress COMMAND`; every command is one module here, named in `_COMMANDS`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Protocol

from ..errors import CompressionError
from ..version import __version__
from . import bench, bench_growth, bench_network, bench_plot, check, describe, list_compressors


class Command(Protocol):
    """What a command's module defines; its docstring's first line is its help."""

    NAME: str
    __doc__: str | None

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's own arguments to `parser`."""
        ...

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it and return the exit code."""
        ...


_COMMANDS: tuple[Command, ...] = (check, list_compressors, describe, bench, bench_network, bench_growth, bench_plot)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code.

    Args:
        arguments: as typed after `python -m hvd_compress`; those of this process if None.
    """
    typed = tuple(sys.argv[1:] if arguments is None else arguments)
    parsed = _parser().parse_args(typed, argparse.Namespace(typed=typed))
    command: Command = parsed.command
    try:
        return command.run(parsed)
    except CompressionError as error:
        print(f"hvd_compress {command.NAME}: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m hvd_compress", description="Gradient compression for Horovod.")
    parser.add_argument("--version", action="version", version=f"hvd_compress {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in _COMMANDS:
        summary = (command.__doc__ or "").partition("\n")[0].partition(": ")[2]
        subparser = commands.add_parser(command.NAME, help=summary, description=summary)
        command.configure(subparser)
        subparser.set_defaults(command=command)
    return parser
