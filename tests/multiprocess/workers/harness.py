"""What a worker process runs: named checks, one after the other, with one line of JSON per check and rank."""

from __future__ import annotations

import faulthandler
import json
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

# Far above what any check needs where more ranks than cores wait for one another: there a second can become ten. A
# machine that stops for a while must not fail a check either, so no check may set itself a limit below the shortest.
SECONDS = 90.0
SHORTEST_SECONDS = 60.0
# Import of the frameworks and start of a session.
START_SECONDS = 120.0


@dataclass(frozen=True)
class Check:
    """One named check: every rank calls `function` at the same time.

    Args:
        name: "module.function", with "[case]" if it has cases.
        function: takes no argument; an exception is a failure.
        seconds: the time limit; a check that runs into it ends the launch.
        min_ranks: the number of ranks below which it says nothing.
        launchers: those it is for; all of its session if empty.
    """

    name: str
    function: Callable[[], None]
    seconds: float
    min_ranks: int
    launchers: tuple[str, ...]


CHECKS: dict[str, Check] = {}


def check(
    *,
    seconds: float = SECONDS,
    min_ranks: int = 1,
    cases: Iterable[Any] | None = None,
    launchers: Sequence[str] = (),
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as a check, or as one check for every case; a case is an argument that tells by its str."""

    if seconds < SHORTEST_SECONDS:
        raise ValueError(f"seconds={seconds!r}: give a check at least {SHORTEST_SECONDS} s.")

    def register(function: Callable[..., None]) -> Callable[..., None]:
        name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        if cases is None:
            CHECKS[name] = Check(name, function, seconds, min_ranks, tuple(launchers))
            return function
        for case in cases:
            full = f"{name}[{case}]"
            CHECKS[full] = Check(full, _bound(function, case), seconds, min_ranks, tuple(launchers))
        return function

    return register


def _bound(function: Callable[..., None], case: Any) -> Callable[[], None]:
    return lambda: function(case)


def run(checks: Sequence[Check], folder: Path, rank: int, gather: Callable[[bool], Sequence[bool]]) -> bool:
    """Run checks in order; return False as soon as one has failed on some rank, since ranks then are out of step.

    Args:
        checks: the same on every rank.
        folder: gets `rank<n>.jsonl` with results and `rank<n>.stacks` with the stacks at a time limit.
        rank: of this process.
        gather: returns the flags of all ranks.
    """
    with open(folder / f"rank{rank}.jsonl", "w") as log, open(folder / f"rank{rank}.stacks", "w") as stacks:
        for item in checks:
            faulthandler.dump_traceback_later(item.seconds, exit=True, file=stacks)
            _write(log, check=item.name, event="start")
            started, error = time.perf_counter(), None
            try:
                item.function()
            except BaseException:
                error = traceback.format_exc()
            _write(log, check=item.name, event="end", error=error, seconds=round(time.perf_counter() - started, 3))
            if any(gather(error is not None)):
                return False
        faulthandler.cancel_dump_traceback_later()
    return True


def _write(log: TextIO, **fields: object) -> None:
    print(json.dumps(fields), file=log, flush=True)
