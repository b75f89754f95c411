"""What the commands that measure have in common: lists as they are typed, wide tables, numbers in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console

# A narrower terminal breaks lines; a narrower table would lose columns.
_COLUMNS = 140


def parts(text: str) -> tuple[str, ...]:
    """Return what stands between commas; nothing for nothing."""
    return tuple(part for part in text.split(",") if part)


def numbers(text: str) -> tuple[int, ...]:
    """Return the whole numbers that stand between commas."""
    return tuple(int(part) for part in parts(text))


def wide_console(quiet: bool = False) -> Console:
    """Return a console that no table of ours is too wide for."""
    return Console(width=max(Console().width, _COLUMNS), quiet=quiet)


def write_json(path: Path | None, report: dict[str, Any]) -> None:
    """Write all numbers into a file, if one is asked for."""
    if path is not None:
        path.write_text(json.dumps(report, indent=2) + "\n")
