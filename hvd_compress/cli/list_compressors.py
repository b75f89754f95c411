"""`list`: the name of every compressor, with one line about each."""

from __future__ import annotations

import argparse
import inspect

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .. import registry

NAME = "list"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add nothing: the command has no arguments."""


def run(arguments: argparse.Namespace) -> int:
    """Print the table."""
    table = Table("name", "stands for", "what it does", box=None, header_style="bold", pad_edge=False)
    for name in registry.names():
        table.add_row(*(Text(cell) for cell in (name, *describe(name))))
    Console().print(table)
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
    documentation = inspect.getdoc(type(compressor)) or ""
    return repr(compressor), documentation.partition("\n")[0]
