"""Targets as a table."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from ..tables import table_of_numbers
from .target import Target

_COLOURS = {"met": "green", "not met": "red", "not measured": "dim"}


def target_table(targets: Iterable[Target]) -> Table:
    """Return a table with a row a target; values are the worst measured ones."""
    made = table_of_numbers("targets: the worst measured value of each", ("target", "measured", "verdict"), "what")
    made.add_column("at", no_wrap=True)
    for target in targets:
        bound = f"{'>=' if target.least else '<='} {target.limit:g}"
        measured = "" if target.measured is None else f"{target.measured:.3g}"
        verdict = Text(target.verdict, _COLOURS[target.verdict])
        made.add_row(Text(target.what), bound, measured, verdict, Text(target.at))
    return made
