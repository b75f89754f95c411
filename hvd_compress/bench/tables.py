"""Tables of measurements: a title, names on the left, numbers on the right."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table


def table_of_numbers(title: str, numbers: Sequence[str], name: str = "row") -> Table:
    """Return an empty table.

    Args:
        title: above it, on the left.
        numbers: heads of the columns of numbers.
        name: head of the column before them.
    """
    made = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    made.add_column(name, no_wrap=True)
    for number in numbers:
        made.add_column(number, justify="right", no_wrap=True)
    return made
