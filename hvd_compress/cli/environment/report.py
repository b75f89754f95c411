"""Prints the rows, for people and for programs."""

from __future__ import annotations

import dataclasses
import json

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...version import __version__
from . import judge
from .facts import Facts
from .row import Row, State

_STYLE: dict[State, str] = {"ok": "green", "missing": "dim", "warning": "yellow", "error": "bold red"}


def as_json(facts: Facts, rows: list[Row]) -> str:
    """Return one JSON object: `hvd_compress` (the version), `usable`, `rows` and the `facts` behind them."""
    content = {
        "hvd_compress": __version__,
        "usable": judge.usable(rows),
        "rows": [dataclasses.asdict(row) for row in rows],
        "facts": dataclasses.asdict(facts),
    }
    return json.dumps(content, indent=2)


def show(rows: list[Row], console: Console) -> None:
    """Print the table, and under it the cure for every row that is not ok, unbroken so that it can be copied."""
    table = Table(
        title=f"hvd_compress {__version__}", title_justify="left", box=None, header_style="bold", pad_edge=False
    )
    for column in ("", "what", "state", "found"):
        table.add_column(column, overflow="fold", no_wrap=column in ("", "state"))
    group = ""
    for row in rows:
        if row.group != group and group:
            table.add_row()
        cells = ("" if row.group == group else row.group, row.name, row.state, row.found)
        table.add_row(*(Text(cell, style=_STYLE[row.state] if cell == row.state else "") for cell in cells))
        group = row.group
    console.print(table)
    cures = [row for row in rows if row.cure]
    if cures:
        console.print(Text("\nWhat to do", style="bold"))
    for row in sorted(cures, key=lambda row: ("error", "warning", "missing", "ok").index(row.state)):
        line = Text.assemble((f"{row.state:8}", _STYLE[row.state]), f"{row.name}: {row.cure}")
        console.print(line, soft_wrap=True)
