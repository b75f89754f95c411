"""What was found of growth, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from ..tables import table_of_numbers
from .measure import Growth
from .model import Fit
from .settings import STOCK


def table(rows: Sequence[Growth]) -> Table:
    """Return the table of one model with one number of workers."""
    first = rows[0]
    stock = next(row.seconds for row in rows if row.row == STOCK)
    title = f"{first.parameters:,} parameters in {first.tensors} tensors, {first.workers} worker(s); ms an exchange"
    made = table_of_numbers(title, ("median", "range", "/ horovod", "collectives"))
    for row in rows:
        made.add_row(
            Text(row.row),
            f"{1e3 * row.seconds:.3g}",
            f"{1e3 * row.fastest:.3g}..{1e3 * row.slowest:.3g}",
            f"{row.seconds / stock:.2f}",
            "" if row.collectives is None else f"{row.collectives:g}",
        )
    return made


def model_table(fits: Mapping[str, Fit], predicted: Sequence[Mapping[str, Any]]) -> Table:
    """Return the fitted models and what they say; the title calls them models."""
    counts = sorted({point["workers"] for point in predicted})
    title = "model: l + steps a + bytes b, fitted to the measured points; ms an exchange, not measured"
    made = table_of_numbers(title, ("l ms", "a us", "b ns", "off by", *(f"W={count}" for count in counts)))
    for row, fit in fits.items():
        said = {point["workers"]: point["seconds"] for point in predicted if point["row"] == row}
        made.add_row(
            Text(row),
            f"{1e3 * fit.local:.3g}",
            f"{1e6 * fit.latency:.3g}",
            f"{1e9 * fit.byte:.3g}",
            f"{fit.error:.0%}",
            *(f"{1e3 * said[count]:.3g}" for count in counts),
        )
    return made
