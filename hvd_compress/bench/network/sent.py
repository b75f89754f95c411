"""Sent: bytes of training steps on the interface, while Horovod coordinates rarely enough not to blur them.

Horovod's ranks tell one another in every cycle, once a millisecond, whether anything is to be exchanged. That is some
hundred bytes a cycle whether it is or not, at a rate that depends on how busy the cores are, so that it can be neither
known nor subtracted. With cycles of `CYCLE_MILLISECONDS` it is too little to matter, and nothing is subtracted.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

# Many times what Horovod takes by itself, and no more than a few times what a step takes.
CYCLE_MILLISECONDS = 100
# By when the link's queue, 256 KB at 100 Mbit/s or more, is empty after a step.
SETTLE_SECONDS = 0.05


@final
@dataclass(frozen=True)
class Sent:
    """Bytes of one row in one place, of a step, on rank 0: means.

    Args:
        workload: what was trained.
        rate: of the links.
        workers: how many.
        row: in which way.
        steps: that were counted.
        link_bytes: that the interface counted as sent, with headers, acknowledgements and coordination.
        metered_bytes: that the exchange counts as sent; None for rivals.
    """

    workload: str
    rate: str
    workers: int
    row: str
    steps: int
    link_bytes: float
    metered_bytes: float | None

    @property
    def difference(self) -> float | None:
        """Bytes of the link / metered ones - 1; None for rivals, and where nothing is metered."""
        return self.link_bytes / self.metered_bytes - 1.0 if self.metered_bytes else None


def sent(place: tuple[str, str, int], rows: Mapping[str, Mapping[str, Any]]) -> list[Sent]:
    """Return the rows of one run from what its worker wrote.

    Args:
        place: workload, rate, number of workers.
        rows: see `worker.Row`.
    """
    return [
        Sent(
            *place,
            row=row,
            steps=len(found["sent_bytes"]),
            link_bytes=statistics.fmean(found["sent_bytes"]),
            metered_bytes=statistics.fmean(found["metered_bytes"]) if found["metered_bytes"] else None,
        )
        for row, found in rows.items()
    ]
