"""SparseVector: k elements of a vector, and how two of them are merged into one of k elements."""

from __future__ import annotations

import math
from typing import NamedTuple

from ..contract import Array
from ..ops import ArrayOps


class SparseVector(NamedTuple):
    """Different positions, int64, and the values there."""

    positions: Array
    values: Array


def merged(a: SparseVector, b: SparseVector, ops: ArrayOps) -> SparseVector:
    """Return the k elements of a + b, each of k elements, with the largest magnitudes.

    Of equal magnitudes the lower position is kept; NaN is largest. Values of b are added to those of a: the same for
    all ranks that agree on which is a.
    """
    count = ops.shape(a.positions)[0]
    positions = ops.concat([a.positions, b.positions])
    order = ops.argsort(positions)
    positions, values = ops.take(positions, order), ops.take(ops.concat([a.values, b.values]), order)
    # A position of both stands twice, a's first; the first gets the sum and the second is dropped.
    twice = positions[:-1] == positions[1:]
    zeros = ops.zeros((2 * count,), ops.dtype(values))
    values = values + ops.concat([ops.where(twice, values[1:], zeros[1:]), zeros[:1]])
    magnitudes = ops.abs(values)
    magnitudes = ops.where(magnitudes == magnitudes, magnitudes, math.inf)
    second = ops.concat([ops.arange(1) > 0, twice])
    best = ops.argsort(-ops.where(second, -1.0, magnitudes))[:count]
    return SparseVector(ops.take(positions, best), ops.take(values, best))


def held(watched: Array, positions: Array, ops: ArrayOps) -> Array:
    """Return for each of the `watched` positions, all different, whether it is one of `positions`: 1 or 0, uint8."""
    count = ops.shape(watched)[0]
    both = ops.concat([watched, positions])
    order = ops.argsort(both)
    ascending = ops.take(both, order)
    twice = ops.concat([ascending[:-1] == ascending[1:], ops.arange(1) > 0])
    marks = ops.put_(ops.zeros((2 * count,), "uint8"), order, ops.cast(twice, "uint8"))
    return marks[:count]
