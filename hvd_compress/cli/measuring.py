"""What the commands that measure have in common: lists as they are typed, wide tables, numbers in a file."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from ..bench.targets import Target, target_table
from ..bench.turns import LEAST_REPEATS, LEAST_WARMUP, Budget
from ..errors import ConfigurationError
from ..registry import different_names

# A narrower terminal breaks lines; a narrower table would lose columns.
_COLUMNS = 200


def parts(text: str) -> tuple[str, ...]:
    """Return what stands between commas; nothing for nothing."""
    return tuple(part for part in text.split(",") if part)


def add_compressors(parser: argparse.ArgumentParser, default: str, more: str = "") -> None:
    """Add the compressors that are measured.

    Args:
        parser: to add to.
        default: names, by commas.
        more: what else may be named.
    """
    parser.add_argument(
        "--compressors",
        default=default,
        help=f"names of `list`, with settings if any, by commas; all: every one of them{more} (default {default})",
    )


def compressors(text: str) -> tuple[str, ...]:
    """Return the compressors that stand between commas, "all" replaced by one name for each that is known."""
    return tuple(name for part in parts(text) for name in (different_names() if part == "all" else (part,)))


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


def conclude(
    console: Console, arguments: argparse.Namespace, report: dict[str, Any], targets: Sequence[Target]
) -> None:
    """Print the targets that the rows can speak about, and write all numbers into a file, if one is asked for.

    Args:
        console: to print on.
        arguments: `json`, the file or None, and `typed`, everything that was typed.
        report: all numbers.
        targets: judged by them.
    """
    measured = [target for target in targets if target.measured is not None]
    if measured:
        console.print(target_table(measured))
    else:
        console.print("None of the targets speaks about rows like these.")
    save(arguments, report, targets)


def save(arguments: argparse.Namespace, report: dict[str, Any], targets: Sequence[Target]) -> None:
    """Write all numbers into a file, if one is asked for; see `conclude`."""
    if arguments.json is not None:
        judged = {"command": _command(arguments.typed), "targets": [target.as_json() for target in targets]}
        arguments.json.write_text(json.dumps({**report, **judged}, indent=2) + "\n")


def _command(typed: Sequence[str]) -> str:
    """Return what was typed, but for the file that it went to."""
    kept = list(typed)
    if "--json" in kept:
        place = kept.index("--json")
        del kept[place : place + 2]
    kept = [word for word in kept if not word.startswith("--json=")]
    return shlex.join(kept)


def add_budget(
    parser: argparse.ArgumentParser, what: str, of: str, *, repeats: int, warmup: int, seconds: float
) -> None:
    """Add how often something is done, and for how long.

    Args:
        parser: to add to.
        what: is done.
        of: what it is done for.
        repeats: default.
        warmup: default.
        seconds: default.
    """
    parser.add_argument("-n", "--iters", type=int, default=repeats, help=f"{what}s timed a {of} (default {repeats})")
    parser.add_argument("-w", "--warmup-iters", type=int, default=warmup, help=f"before them (default {warmup})")
    parser.add_argument(
        "--seconds",
        type=float,
        default=seconds,
        help=f"a {of} whose timed {what}s took so long together, and are {LEAST_REPEATS} at least, has enough; before "
        f"them, a quarter of it and {LEAST_WARMUP} (default {seconds:g})",
    )


def budget(arguments: argparse.Namespace) -> Budget:
    """Return what `add_budget` added.

    Raises:
        ConfigurationError: a number is out of range.
    """
    return Budget(arguments.warmup_iters, arguments.iters, arguments.seconds)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the file that all numbers go to."""
    parser.add_argument("--json", type=_writable, help="write all numbers and targets into this file; see bench-plot")


def _writable(text: str) -> Path:
    """Return the path of a file whose folder is there: hours of measuring must not end in a missing one."""
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r}: there is no folder {str(path.parent)!r}; make it first.")
    return path
