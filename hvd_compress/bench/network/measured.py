"""Measured: one way of training on one kind of link, in numbers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

# The row that exchanges nothing.
FLOOR = "alone"
# What stands before the names of our compressors in rows; every other row but the floor is a peer.
OURS = "ours:"


@final
@dataclass(frozen=True)
class Measured:
    """One row on one kind of link; seconds and bytes are those of a step, on rank 0.

    Args:
        workload: what was trained.
        rate: of the links.
        workers: how many.
        row: in which way.
        steps: that were timed.
        seconds: the median.
        lower: the lower quartile.
        upper: the upper quartile.
        link_bytes: that the worker's link counted as sent, the mean; Horovod's coordination is among them, see `Sent`.
        compute_seconds: neither of the next two, the median; None for rivals, as those are.
        compress_seconds: in compressors, the median.
        wait_seconds: in collectives, the median.
        metered_bytes: that the exchange counts as sent, the mean; None for rivals.
        collectives: that the exchange starts, the mean; None for rivals.
        buckets: of the exchange; None for rivals.
        state_bytes: that the compressor keeps between steps, as declared; None for rivals.
        gradient_bytes: of the model.
    """

    workload: str
    rate: str
    workers: int
    row: str
    steps: int
    seconds: float
    lower: float
    upper: float
    link_bytes: float
    compute_seconds: float | None
    compress_seconds: float | None
    wait_seconds: float | None
    metered_bytes: float | None
    collectives: float | None
    buckets: int | None
    state_bytes: int | None
    gradient_bytes: int

    @property
    def is_peer(self) -> bool:
        """Whether this is what a user would pick instead."""
        return self.row != FLOOR and not self.row.startswith(OURS)


def measured(place: tuple[str, str, int], rows: Mapping[str, Mapping[str, Any]], gradient_bytes: int) -> list[Measured]:
    """Return the rows of one run from what its worker wrote.

    Args:
        place: workload, rate, number of workers.
        rows: see `worker.Row`.
        gradient_bytes: of the workload's model.
    """
    return [_measured(place, row, found, gradient_bytes) for row, found in rows.items()]


def _measured(place: tuple[str, str, int], row: str, found: Mapping[str, Any], gradient_bytes: int) -> Measured:
    seconds, ours = found["seconds"], found["buckets"] is not None
    lower, _, upper = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
    split = zip(seconds, found["compress_seconds"], found["wait_seconds"], strict=True) if ours else ()
    return Measured(
        *place,
        row=row,
        steps=len(seconds),
        seconds=statistics.median(seconds),
        lower=lower,
        upper=upper,
        link_bytes=statistics.fmean(found["sent_bytes"]),
        compute_seconds=statistics.median(whole - own - wait for whole, own, wait in split) if ours else None,
        compress_seconds=statistics.median(found["compress_seconds"]) if ours else None,
        wait_seconds=statistics.median(found["wait_seconds"]) if ours else None,
        metered_bytes=statistics.fmean(found["metered_bytes"]) if ours else None,
        collectives=statistics.fmean(found["collectives"]) if ours else None,
        buckets=found["buckets"],
        state_bytes=found["state_bytes"],
        gradient_bytes=gradient_bytes,
    )
