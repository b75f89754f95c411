"""The rows of a suite as tables and as JSON: against the floor, and against the best that a user would pick instead."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from rich.table import Table
from rich.text import Text

from ..machine import machine
from ..tables import table_of_numbers
from .measured import FLOOR, Measured
from .sent import CYCLE_MILLISECONDS, Sent
from .suite import NetworkSettings

_COLUMNS = ("median", "quartiles", "/ floor", "/ best peer", "compute", "compress", "wait", "link bytes", "steps")
_BYTES = ("link bytes", "counted", "differs by", "steps")
_Row = TypeVar("_Row", Measured, Sent)


def by_place(rows: Iterable[_Row]) -> list[list[_Row]]:
    """Return the rows in groups, one for every workload, rate and number of workers, in their order."""
    found: dict[tuple[str, str, int], list[_Row]] = {}
    for row in rows:
        found.setdefault((row.workload, row.rate, row.workers), []).append(row)
    return list(found.values())


def table(rows: Sequence[Measured]) -> Table:
    """Return the table of one workload, rate and number of workers; the floor is among its rows."""
    first = rows[0]
    floor = next(row.seconds for row in rows if row.row == FLOOR)
    peers = [row.seconds for row in rows if row.is_peer]
    title = f"{first.workload}, {first.rate}, {first.workers} workers; ms and bytes a step"
    made = table_of_numbers(title, _COLUMNS)
    for row in rows:
        made.add_row(
            Text(row.row),
            _ms(row.seconds),
            f"{_ms(row.lower)}..{_ms(row.upper)}",
            f"{row.seconds / floor:.2f}",
            f"{row.seconds / min(peers):.2f}" if peers else "",
            _ms(row.compute_seconds),
            _ms(row.compress_seconds),
            _ms(row.wait_seconds),
            f"{row.link_bytes:,.0f}",
            str(row.steps),
        )
    return made


def sent_table(rows: Sequence[Sent]) -> Table:
    """Return the table of the bytes of one workload and number of workers."""
    first = rows[0]
    place = f"{first.workload}, {first.rate}, {first.workers} workers"
    made = table_of_numbers(f"bytes a step: {place}, cycles of {CYCLE_MILLISECONDS} ms", _BYTES)
    for row in rows:
        made.add_row(
            Text(row.row),
            f"{row.link_bytes:,.0f}",
            "" if row.metered_bytes is None else f"{row.metered_bytes:,.0f}",
            "" if row.difference is None else f"{row.difference:+.1%}",
            str(row.steps),
        )
    return made


def as_json(
    settings: NetworkSettings, rows: Sequence[Measured], counted: Sequence[Sent], load: float
) -> dict[str, Any]:
    """Return all numbers, and what is needed to read them.

    Args:
        settings: that were measured with.
        rows: measured.
        counted: bytes.
        load: average of the machine before the run.
    """
    return {
        "suite": "network",
        "settings": asdict(settings),
        "units": "seconds and bytes a step, of rank 0",
        "measured": [asdict(row) for row in rows],
        "sent": [{**asdict(row), "difference": row.difference} for row in counted],
        "machine": machine(load),
    }


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e3 * seconds:.3g}" if seconds < 0.1 else f"{1e3 * seconds:.0f}"
