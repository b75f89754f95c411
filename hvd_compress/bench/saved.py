"""Saved measurements: rows that were written as JSON, read again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError

SUITES = ("micro", "growth", "network")
_NEEDED = {"settings", "machine", "command", "targets"}


def rows_of(saved: Iterable[Mapping[str, Any]], kind: Any) -> list[Any]:
    """Return dataclass instances from mappings; what was derived from their fields is passed over.

    Args:
        saved: a mapping for every row.
        kind: the dataclass.

    Raises:
        ConfigurationError: a row lacks a field.
    """
    names = [field.name for field in fields(kind)]
    try:
        return [kind(**{name: row[name] for name in names}) for row in saved]
    except KeyError as error:
        raise ConfigurationError(
            f"A saved {kind.__name__} has no {error.args[0]!r}: another version wrote it; measure again."
        ) from error


def read_report(path: Path) -> dict[str, Any]:
    """Return what `bench`, `bench-growth` or `bench-network` wrote with --json.

    Raises:
        ConfigurationError: there is no such file, or it is none of theirs.
    """
    try:
        report = json.loads(path.read_text())
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ConfigurationError(f"{path} is no JSON: {error}.") from error
    if not isinstance(report, dict) or report.get("suite") not in SUITES or not report.keys() >= _NEEDED:
        raise ConfigurationError(
            f"{path} has no measurements of bench, bench-growth or bench-network; give what they wrote by --json."
        )
    return report
