"""What the commands that measure have in common: lists as they are typed, wide tables, numbers in a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from ..bench.targets import Target, target_table
from ..errors import ConfigurationError

# A narrower terminal breaks lines; a narrower table would lose columns.
_COLUMNS = 200


def parts(text: str) -> tuple[str, ...]:
    """Return what stands between commas; nothing for nothing."""
    return tuple(part for part in text.split(",") if part)


def numbers(text: str) -> tuple[int, ...]:
    """Return the whole numbers that stand between commas.

    Raises:
        ConfigurationError: something else stands there.
    """
    try:
        return tuple(int(part) for part in parts(text))
    except ValueError as error:
        raise ConfigurationError(f"{text!r}: give whole numbers, separated by commas.") from error


def wide_console(quiet: bool = False) -> Console:
    """Return a console that no table of ours is too wide for."""
    return Console(width=max(Console().width, _COLUMNS), quiet=quiet)


def conclude(console: Console, path: Path | None, report: dict[str, Any], targets: Sequence[Target]) -> None:
    """Print the targets that the rows can speak about, and write all numbers into a file, if one is asked for.

    Args:
        console: to print on.
        path: of the file.
        report: all numbers.
        targets: judged by them.
    """
    measured = [target for target in targets if target.measured is not None]
    if measured:
        console.print(target_table(measured))
    if path is not None:
        path.write_text(json.dumps({**report, "targets": [target.as_json() for target in targets]}, indent=2) + "\n")
