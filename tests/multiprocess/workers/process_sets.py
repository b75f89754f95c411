"""The process sets of every launch; Horovod wants them named when it is initialised."""

from __future__ import annotations

import horovod.torch as stock

SETS: dict[str, stock.ProcessSet] = {}


def make(ranks: int) -> list[stock.ProcessSet]:
    """Return "last", the set of the last rank alone, and where there is room "ends", of the first and the last."""
    if ranks >= 2:
        SETS["last"] = stock.ProcessSet([ranks - 1])
    if ranks >= 3:
        SETS["ends"] = stock.ProcessSet([0, ranks - 1])
    return list(SETS.values())
