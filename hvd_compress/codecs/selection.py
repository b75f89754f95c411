"""How many elements a sparse compressor sends, and which are the largest."""

from __future__ import annotations

import math

from ..contract import Array, Spec
from ..ops import ArrayOps

# Below this many elements, or with groups smaller than this, one sort is as fast as two.
_MIN_SIZE, _MIN_GROUP = 4096, 4


def is_large(spec: Spec, min_size: int) -> bool:
    """Return whether a gradient is worth picking elements of: vectors, such as biases, and small tensors are not."""
    return len(spec.shape) >= 2 and spec.size >= min_size


def count_of(ratio: float, size: int) -> int:
    """Return ceil(ratio d), at least 1 of d >= 1 elements; 0.07 of 100 are 7, whatever binary fractions say."""
    return min(size, max(1, math.ceil(round(ratio * size, 6))))


def chunk_of(ratio: float) -> int:
    """Return ceil(1/ratio): one element of a chunk of so many is sent."""
    return math.ceil(round(1.0 / ratio, 6))


def largest(magnitudes: Array, count: int, ops: ArrayOps) -> Array:
    """Return the positions of the `count` largest of a 1-D array, ascending; NaN is largest.

    The count largest elements are in the count groups with the largest maxima. With sqrt(d/count) elements a group,
    two selections of sqrt(d count) numbers each do the work of one of d; the rest is one pass for the maxima. Groups
    are strided, element i of each side by side in memory.
    """
    size = ops.shape(magnitudes)[0]
    group = round(math.sqrt(size / count)) if count else 0
    if size < _MIN_SIZE or group < _MIN_GROUP:
        return ops.top_k(magnitudes, count)
    groups = size // group
    whole = groups * group
    maxima = ops.max(ops.reshape(magnitudes[:whole], (group, groups)), axis=0)
    best = ops.top_k(ops.flatten(maxima), count)
    members = ops.flatten(ops.reshape(ops.arange(group) * groups, (-1, 1)) + ops.reshape(best, (1, -1)))
    members = ops.concat([members, ops.arange(size - whole) + whole])
    positions = ops.take(members, ops.top_k(ops.take(magnitudes, members), count))
    return ops.take(positions, ops.argsort(positions))


def largest_of_chunks(magnitudes: Array, chunk: int, ops: ArrayOps) -> Array:
    """Return for every `chunk` consecutive elements, fewer at the end, where in them the largest is; NaN is largest."""
    size = ops.shape(magnitudes)[0]
    whole = size // chunk * chunk
    found = [ops.argmax(ops.reshape(magnitudes[:whole], (-1, chunk)))] if whole else []
    if whole < size:
        found.append(ops.argmax(ops.reshape(magnitudes[whole:], (1, -1))))
    return ops.concat(found) if found else ops.zeros((0,), "int64")


def alarm(x: Array, ops: ArrayOps) -> Array:
    """Return 0, or NaN where x is not finite everywhere, 0-D; added to what is sent, it tells the other ranks."""
    return ops.max(ops.abs(x)) * 0.0
