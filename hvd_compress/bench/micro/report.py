"""The results of a micro-benchmark, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rich.table import Table
from rich.text import Text

from ..machine import machine
from ..sizes import as_text
from ..tables import table_of_numbers
from .measure import Point
from .settings import MicroSettings

_PACKAGES = {"numpy": ("numpy", "mpi4py"), "torch": ("torch", "horovod"), "tensorflow": ("tensorflow-cpu", "horovod")}


def table(points: Iterable[Point], library: str, device: str, dtype: str, world_size: int) -> Table:
    """Return a table with a row a point; the rest is for its title."""
    title = f"{library} on {device}, {dtype}, {world_size} worker(s); medians in ms"
    columns = ("encode", "collective", "decode", "total", "range", "copies", "sent", "ratio", "state", "error")
    made = table_of_numbers(title, columns, "compressor", before=("size",))
    for point in points:
        made.add_row(
            as_text(point.nbytes),
            Text(point.compressor),
            *(_ms(part) for part in (point.encode, point.collective, point.decode, point.total)),
            f"{_ms(point.fastest)}..{_ms(point.slowest)}",
            f"{point.copies:.1f}",
            f"{point.wire_bytes:,.0f}",
            f"{point.ratio:.1f}x",
            f"{point.state_bytes:,}",
            f"{point.relative_error:.2g}",
        )
    return made


def as_json(points: Sequence[Point], settings: MicroSettings, world_size: int, load: float) -> dict[str, Any]:
    """Return all numbers, and what is needed to read them.

    Args:
        points: measured.
        settings: that they were measured with.
        world_size: number of processes.
        load: average of the machine before the run.
    """
    return {
        "suite": "micro",
        "settings": asdict(settings),
        "workers": world_size,
        "units": "seconds and bytes; copies: multiples of one copy of the gradient, in the same run",
        "points": [{**asdict(point), "copies": point.copies} for point in points],
        "machine": machine(load),
        "packages": {name: _version(name) for name in _PACKAGES[settings.library]},
    }


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e3 * seconds:.3g}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed as such"
