"""The rows of a suite as tables: against the floor, and against the best that a user would pick instead."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from ..tables import table_of_numbers
from .suite import FLOOR, PEERS, Measured


def table(rows: Sequence[Measured]) -> Table:
    """Return the table of one workload, rate and number of workers; the floor is among its rows."""
    first = rows[0]
    floor = next(row.seconds for row in rows if row.row == FLOOR)
    peers = [row.seconds for row in rows if row.row in PEERS]
    title = f"{first.workload}, {first.rate}, {first.workers} workers; ms a step"
    made = table_of_numbers(
        title, ("median", "quartiles", "/ floor", "/ best peer", "compress", "wait", "link bytes", "counted bytes")
    )
    for row in rows:
        made.add_row(
            Text(row.row),
            f"{1e3 * row.seconds:.0f}",
            f"{1e3 * row.lower:.0f}..{1e3 * row.upper:.0f}",
            f"{row.seconds / floor:.2f}",
            f"{row.seconds / min(peers):.2f}" if peers else "",
            "" if row.compress_seconds is None else f"{1e3 * row.compress_seconds:.1f}",
            "" if row.wait_seconds is None else f"{1e3 * row.wait_seconds:.1f}",
            f"{row.link_bytes:,.0f}",
            "" if row.metered_bytes is None else f"{row.metered_bytes:,.0f}",
        )
    return made
