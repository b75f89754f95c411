"""Made-up measurements."""

from __future__ import annotations

from typing import Any

from hvd_compress.bench.growth.point import Growth
from hvd_compress.bench.micro import Point
from hvd_compress.bench.network.measured import Measured
from hvd_compress.bench.network.sent import Sent


def point(row: str, nbytes: int, copies: float, **changes: Any) -> Point:
    """Return one whose exchange takes so many copies of the gradient."""
    fields: dict[str, Any] = {
        "total": copies,
        "fastest": 0.9 * copies,
        "slowest": 1.1 * copies,
        "encode": copies / 4,
        "collective": None if row.startswith("codec:") else copies / 4,
        "decode": copies / 4,
        "copy": 1.0,
        "workers": 2,
        "wire_bytes": nbytes / 2,
        "ratio": 2.0,
        "state_bytes": 0,
        "relative_error": 0.5,
    }
    return Point(row, nbytes, **{**fields, **changes})


def growth(row: str, grown: Any, tensors: int, seconds: float, workers: int = 2) -> Growth:
    counts = (None, None) if row == "horovod" else (2.0, 1)
    return Growth(grown, row, 1024 * tensors, tensors, workers, 0, 5, seconds, 0.9 * seconds, 1.1 * seconds, *counts)


def step(row: str, seconds: float, **changes: Any) -> Measured:
    """Return a row of the LSTM between two workers at 1 Gbit/s."""
    ours = row.startswith("ours:")
    fields: dict[str, Any] = {
        "steps": 5,
        "lower": 0.9 * seconds,
        "upper": 1.2 * seconds,
        "link_bytes": 1000.0,
        "compute_seconds": seconds / 2 if ours else None,
        "compress_seconds": seconds / 4 if ours else None,
        "wait_seconds": seconds / 4 if ours else None,
        "metered_bytes": 900.0 if ours else None,
        "collectives": 2.0 if ours else None,
        "buckets": 1 if ours else None,
        "state_bytes": 100 if ours else None,
        "gradient_bytes": 100,
    }
    place: dict[str, Any] = {"workload": "lstm", "rate": "1gbit", "workers": 2}
    return Measured(row=row, seconds=seconds, **{**place, **fields, **changes})


def sent(row: str, link: float, metered: float | None, workers: int = 2) -> Sent:
    """Return the bytes of a row of the LSTM at 1 Gbit/s."""
    return Sent("lstm", "1gbit", workers, row, 4, link, metered)
