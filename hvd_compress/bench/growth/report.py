"""What was found of growth, as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from ..machine import machine
from ..tables import table_of_numbers
from .model import Fit
from .point import STOCK, Growth
from .settings import GrowthSettings


def by_model(rows: Iterable[Growth]) -> list[list[Growth]]:
    """Return the rows that took turns together, for every model and number of workers, in their order."""
    found: dict[tuple[str, int, int, int, int], list[Growth]] = {}
    for row in rows:
        found.setdefault((row.grown, row.parameters, row.tensors, row.workers, row.group), []).append(row)
    return list(found.values())


def table(rows: Sequence[Growth]) -> Table:
    """Return the table of rows that took turns together."""
    first = rows[0]
    stock = next(row.seconds for row in rows if row.row == STOCK)
    title = f"{first.parameters:,} parameters in {first.tensors} tensors, {first.workers} worker(s); ms an exchange"
    if first.group > 0:
        title += f" (group {first.group + 1})"
    made = table_of_numbers(title, ("median", "range", "/ horovod", "collectives", "exchanges"))
    for row in rows:
        made.add_row(
            Text(row.row),
            f"{1e3 * row.seconds:.3g}",
            f"{1e3 * row.fastest:.3g}..{1e3 * row.slowest:.3g}",
            f"{row.seconds / stock:.2f}" if row.workers > 1 else "",  # alone, Horovod exchanges nothing
            "" if row.collectives is None else f"{row.collectives:g}",
            str(row.exchanges),
        )
    return made


def model_table(fits: Mapping[str, Fit], predicted: Sequence[Mapping[str, Any]]) -> Table:
    """Return the fitted models and what they say; the title calls them models."""
    counts = sorted({point["workers"] for point in predicted})
    title = "model: l + messages a + bytes b, fitted to the measured points; ms an exchange, not measured"
    made = table_of_numbers(title, ("l ms", "a us", "b ns", "off by", *(f"W={count}" for count in counts)))
    for row, model in fits.items():
        said = {point["workers"]: point["seconds"] for point in predicted if point["row"] == row}
        made.add_row(
            Text(row),
            f"{1e3 * model.local:.3g}",
            f"{1e6 * model.latency:.3g}",
            f"{1e9 * model.byte:.3g}",
            f"{model.error:.0%}",
            *(f"{1e3 * said[count]:.3g}" for count in counts),
        )
    return made


def as_json(
    settings: GrowthSettings, measured: Sequence[Growth], predicted: Sequence[Mapping[str, Any]], load: float
) -> dict[str, Any]:
    """Return all numbers, and what is needed to read them.

    Args:
        settings: that were measured with.
        measured: rows.
        predicted: what models say of more workers.
        load: average of the machine before the run.
    """
    return {
        "suite": "growth",
        "settings": asdict(settings),
        "units": "seconds an exchange; predictions are those of a model",
        "measured": [asdict(row) for row in measured],
        "predicted": list(predicted),
        "machine": machine(load),
    }
