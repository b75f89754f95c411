"""A row of the table: one thing, its state and, unless all is well, what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

State = Literal["ok", "missing", "warning", "error"]


@final
@dataclass(frozen=True)
class Row:
    """What was found about one thing.

    Args:
        group: "Python", "MPI", "Horovod", "Launch" or "Verdict".
        name: of the thing.
        state: "missing" is not there and may not be needed; "warning" works but should be known; "error" does not
            work.
        found: in words.
        cure: what to do, as a sentence; "" exactly if the state is "ok".
    """

    group: str
    name: str
    state: State
    found: str
    cure: str = ""
