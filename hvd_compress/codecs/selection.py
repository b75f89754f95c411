"""How many elements a sparse compressor sends, and which are the largest."""

from __future__ import annotations

import math

from ..contract import Array, Key, Spec
from ..ops import ArrayOps

# The share of elements that a threshold is estimated from, and how many at least.
_SAMPLE, _MIN_SAMPLE = 0.01, 1024


def is_large(spec: Spec, min_size: int) -> bool:
    """Return whether a gradient is worth picking elements of: vectors, such as biases, and small tensors are not."""
    return len(spec.shape) >= 2 and spec.size >= min_size


def count_of(ratio: float, size: int) -> int:
    """Return ceil(ratio d), at least 1 of d >= 1 elements; 0.07 of 100 are 7, whatever binary fractions say."""
    return min(size, max(1, math.ceil(round(ratio * size, 6))))


def chunk_of(ratio: float) -> int:
    """Return ceil(1/ratio): one element of a chunk of so many is sent."""
    return math.ceil(round(1.0 / ratio, 6))


def above_sampled_threshold(magnitudes: Array, count: int, key: Key, ops: ArrayOps) -> Array:
    """Return `count` positions of a 1-D array, ascending: about the largest, by a threshold found in a sample.

    The threshold is the number that half as many again are above, in the sample, as the share of `count` in all. Of the
    first 3 count elements above it the largest are taken; if fewer than `count` are above, some below it fill up.

    Source: Lin et al. 2018 (arXiv:1712.01887), section 5.
    """
    size = ops.shape(magnitudes)[0]
    stride = size // max(_MIN_SAMPLE, math.ceil(size * _SAMPLE))
    if stride < 2 or 6 * count > size:
        return ops.largest(magnitudes, count)
    taken = size // stride
    first = ops.sample(stride, 1, (*key, "sample"))
    sample = ops.take(magnitudes, first + ops.arange(taken) * stride)
    top = ops.take(sample, ops.top_k(sample, max(1, round(1.5 * count * taken / size))))
    # What is not a number is below nothing.
    below = ops.cumsum(ops.cast(magnitudes < -ops.max(-top), "int64"))
    above = ops.arange(size) + 1 - below
    slots = ops.arange(3 * count) + 1
    found = ops.searchsorted(above, slots)
    candidates = ops.where(found < size, found, ops.searchsorted(below, slots))
    picked = ops.take(candidates, ops.top_k(ops.take(magnitudes, candidates), count))
    return ops.take(picked, ops.argsort(picked))


def largest_of_chunks(x: Array, chunk: int, ops: ArrayOps) -> Array:
    """Return for every `chunk` consecutive elements, fewer at the end, where in them the largest |x| is.

    NaN is largest; of equal ones it is the first.
    """
    size = ops.shape(x)[0]
    whole = size // chunk * chunk

    def part(start: int, stop: int) -> list[Array]:
        return [ops.argmax_abs(ops.reshape(x[start:stop], (-1, chunk)))]

    found = ops.by_pieces(part, whole, chunk, [(whole // chunk, "int64")]) if whole else []
    if whole < size:
        found.append(ops.argmax_abs(ops.reshape(x[whole:], (1, -1))))
    return ops.concat(found) if found else ops.zeros((0,), "int64")


def alarm(x: Array, ops: ArrayOps) -> Array:
    """Return 0, or NaN where x is not finite everywhere, 0-D; added to what is sent, it tells the other ranks."""
    return ops.max_abs(x) * 0.0
