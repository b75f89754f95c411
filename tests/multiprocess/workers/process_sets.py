"""The process sets of every launch; Horovod wants them named when it is initialised."""

from __future__ import annotations

from horovod.common.process_sets import ProcessSet

SETS: dict[str, ProcessSet] = {}


def make(ranks: int) -> list[ProcessSet]:
    """Return "last", the set of the last rank alone, and where there is room "ends", of the first and the last."""
    if ranks >= 2:
        SETS["last"] = ProcessSet([ranks - 1])
    if ranks >= 3:
        SETS["ends"] = ProcessSet([0, ranks - 1])
    return list(SETS.values())
