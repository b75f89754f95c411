"""Tables of measurements: a title, names on the left, numbers on the right."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text


def table_of_numbers(title: str, numbers: Sequence[str], name: str = "row", before: Sequence[str] = ()) -> Table:
    """Return an empty table.

    Args:
        title: above it, on the left, in one line.
        numbers: heads of the columns of numbers.
        name: head of the column of names.
        before: heads of columns of numbers before that.
    """
    heading = Text(title, no_wrap=True, overflow="ignore")
    made = Table(title=heading, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for column in before:
        made.add_column(column, justify="right", no_wrap=True)
    made.add_column(name, no_wrap=True)
    for column in numbers:
        made.add_column(column, justify="right", no_wrap=True)
    return made


def as_markdown(table: Table) -> str:
    """Return a table as Markdown, its title in bold above it."""
    heads = [str(column.header) for column in table.columns]
    marks = ["---:" if column.justify == "right" else "---" for column in table.columns]
    rows = zip(*([str(cell) for cell in column.cells] for column in table.columns), strict=True)
    lines = [" | ".join(cell.replace("|", "\\|") for cell in cells) for cells in (heads, marks, *rows)]
    return f"**{table.title}**\n\n" + "".join(f"| {line} |\n" for line in lines)
