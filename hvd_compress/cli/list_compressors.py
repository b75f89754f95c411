"""`list`: the name of every compressor, with one line about each."""

from __future__ import annotations

import argparse
import inspect
import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .. import registry
from ..contract import Codec
from ..methods import Method

NAME = "list"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add nothing: the command has no arguments."""


def run(arguments: argparse.Namespace) -> int:
    """Print the table."""
    rows = [(name, *describe(name)) for name in registry.names()]
    table = Table(box=None, header_style="bold", pad_edge=False)
    # One line each: where a terminal ends, it is the description that is cut.
    table.add_column("name", no_wrap=True, min_width=max(len(row[0]) for row in rows))
    table.add_column("stands for", no_wrap=True, max_width=24 if sys.stdout.isatty() else None)
    table.add_column("what it does", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else 1000).print(table)
    return 0


def describe(name: str) -> tuple[str, str]:
    """Return what a registered name stands for, and the first line of its documentation.

    Args:
        name: one of `registry.names()`. One that cannot be made, say because a third party's package is broken,
            is described by its error.
    """
    try:
        compressor = registry.resolve(name)
    except Exception as error:  # anything may be wrong in somebody else's entry point
        return "", f"cannot be made: {type(error).__name__}: {error}"
    return repr(compressor), _first_line(compressor)


def _first_line(compressor: object) -> str:
    """Return the first line of a compressor's documentation; of its codec's, and how that travels, if it has one."""
    own = (inspect.getdoc(type(compressor)) or "").partition("\n")[0]
    codec = getattr(compressor, "codec", None)
    if not isinstance(codec, Codec) or isinstance(compressor, Method):
        return own
    return f"{_first_line(codec)} [{type(compressor).__name__}]"
