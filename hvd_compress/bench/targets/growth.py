"""Targets for exchanges that grow: against Horovod's own optimizer in the same run."""

from __future__ import annotations

from collections.abc import Sequence

from ...codecs import Identity
from ...registry import resolve
from ..growth.point import STOCK, Growth
from .limits import SAME, collectives
from .target import Target, judge

_MANY = 2000


def growth_targets(rows: Sequence[Growth]) -> list[Target]:
    """Return the targets, judged by exchanges of at least two workers: alone, Horovod exchanges nothing.

    Args:
        rows: measured; for every model those of our compressors and of Horovod.
    """
    shared = [row for row in rows if row.workers >= 2]
    stock = {_model(row): row.seconds for row in shared if row.row == STOCK}
    ours = [row for row in shared if row.row != STOCK and _model(row) in stock]
    # More workers than two take turns on a machine of few cores, and their times say little.
    pairs = [row for row in ours if row.workers == 2]
    many = [row for row in pairs if row.grown == "tensors" and row.tensors == _MANY]
    per_row = [
        judge(
            f"{_MANY:,} tensors of 4 KB: {name} / Horovod dense",
            2.0,
            [(row.seconds / stock[_model(row)], _at(row)) for row in many if row.row == name],
        )
        for name in dict.fromkeys(row.row for row in many)
    ]
    same = [(row.seconds / stock[_model(row)], _at(row)) for row in pairs if resolve(row.row) == Identity()]
    counted = [
        (row.row, row.collectives / row.buckets, _at(row))
        for row in rows
        if row.collectives is not None and row.buckets
    ]
    return [
        *(per_row or [judge(f"{_MANY:,} tensors of 4 KB: ours / Horovod dense", 2.0, [])]),
        judge("plain averages through our driver / Horovod dense", SAME, same),
        collectives(counted),
    ]


def _model(row: Growth) -> tuple[str, int, int, int, int]:
    return row.grown, row.parameters, row.tensors, row.workers, row.group


def _at(row: Growth) -> str:
    return f"{row.parameters:,} parameters in {row.tensors} tensors, {row.workers} workers"
