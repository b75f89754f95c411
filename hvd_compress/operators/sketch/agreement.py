"""A guard: that all ranks have chosen the same coordinates, before values at them are averaged."""

from __future__ import annotations

from functools import cache

import numpy as np

from ...contract import Array
from ...ops import ArrayOps
from .field import PRIME, polynomial

# Bits of the checksum, each of which travels as a number of its own.
CHECK_BITS = 24
_MIXING = (1_103_515_245, 12_345_678, 1_664_525_013, 987_654_321)


def checksum(positions: Array, dtype: str, ops: ArrayOps) -> Array:
    """Return the bits of a checksum of int64 positions, as numbers 0 and 1 of an element type that can be averaged.

    The mean of equal bits is that bit, but for rounding. Where ranks differ in a bit, the mean is off by at least 1/2
    for some of them, whatever their number and however coarse the element type.
    """
    count = ops.shape(positions)[0]
    terms = ops.by_pieces(lambda start, stop: [_mixed(positions[start:stop])], count, 1, [(count, "int64")])[0]
    total = ops.sum(terms)
    return ops.cast(ops.reshape(total, (1,)) // _powers(ops) % 2, dtype)


def check_agreement(average: Array, own: Array, ops: ArrayOps) -> None:
    """Raise CorruptPayloadError where the average of all ranks' checksums is not this rank's own."""
    ops.check(
        ops.max(ops.abs(average - own)) < 0.25,
        "Ranks have chosen different coordinates of one sketch: an allreduce did not give all of them the same table.",
    )


def _mixed(positions: Array) -> Array:
    return polynomial(positions % PRIME, _MIXING)


@cache
def _powers(ops: ArrayOps) -> Array:
    return ops.from_numpy(2 ** np.arange(CHECK_BITS, dtype=np.int64))
