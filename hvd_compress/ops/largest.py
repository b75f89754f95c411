"""Where the largest numbers of an array are: by groups on any device; by a threshold in a processor's memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .random import random_generator

if TYPE_CHECKING:
    from .array import Array
    from .base import ArrayOps

_Numbers: TypeAlias = "np.ndarray[Any, Any]"

# Below this many elements, or with groups smaller than this, one sort is as fast as two.
_MIN_SIZE, _MIN_GROUP = 4096, 4
# Elements that a threshold is estimated from, and by how many standard deviations more are let through.
_SAMPLE, _DEVIATIONS = 2**14, 4.0
# NumPy lists what is set in a mask several times as fast where it is more than a tenth: from half of that on, more are
# let through.
_MANY, _DENSE = 0.05, 0.11
# Elements looked through at once: they and what is made of them stay in a processor's cache.
_PIECE = 2**15


def by_groups(magnitudes: Array, count: int, ops: ArrayOps) -> Array:
    """Return the positions of the `count` largest of a 1-D array, ascending; NaN is largest.

    The count largest elements are in the count groups with the largest maxima. With sqrt(d/count) elements a group,
    two selections of sqrt(d count) numbers each do the work of one of d; the rest is one pass for the maxima. Groups
    are strided, element i of each side by side in memory. No shape depends on numbers.
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


def by_threshold(x: _Numbers, count: int) -> _Numbers:
    """Return the positions of the `count` largest |x| of a 1-D array, ascending; NaN counts as inf.

    Of equal ones the first are taken. A sample gives a threshold that a little more than `count` are above; one pass
    finds these, and the largest of them are the answer. Where fewer are above, as the sample was unlucky or most
    numbers are equal, all that are not 0 are candidates, and zeros fill up: the answer does not depend on the sample.
    """
    size = x.shape[0]
    # More than `count` of the sample's share, so that it is very improbable that fewer than `count` are above.
    above = math.ceil(_SAMPLE * count / size + _DEVIATIONS * math.sqrt(_SAMPLE * count / size) + 1.0) if size else 0
    if above > _MANY * _SAMPLE:
        above = max(above, math.ceil(_DENSE * _SAMPLE))
    if size < 4 * _SAMPLE or above >= _SAMPLE:
        return of_top(np.abs(x), count)
    threshold = np.partition(_sampled(x), _SAMPLE - above)[_SAMPLE - above]
    found = _where(x, lambda magnitudes, passed: np.less_equal(magnitudes, threshold, out=passed))
    if found.shape[0] < count:
        found = np.flatnonzero(x)
    if found.shape[0] < count:
        zeros = _where(x, lambda magnitudes, passed: np.not_equal(magnitudes, 0.0, out=passed), count - found.shape[0])
        return np.sort(np.concatenate([found, zeros]))
    return found[of_top(np.abs(x[found]), count)]


def of_top(x: _Numbers, count: int) -> _Numbers:
    """Return the positions of the `count` largest of 1-D x, ascending; NaN counts as inf, of equal ones the first."""
    size = x.shape[0]
    if count >= size:
        return np.arange(size)
    if count == 0:
        return np.zeros(0, np.int64)
    order = np.where(np.isnan(x), np.inf, x).astype(x.dtype, copy=False) if x.dtype.kind == "f" else x
    least = np.partition(order, size - count)[size - count]
    chosen = order > least
    equal = np.flatnonzero(order == least)
    chosen[equal[: count - np.count_nonzero(chosen)]] = True
    return np.flatnonzero(chosen)


def _sampled(x: _Numbers) -> _Numbers:
    """Return |x| at one random place in each of `_SAMPLE` equal stretches; 0 for NaN, so that no threshold is one."""
    # Fixed steps could follow the rows of a matrix.
    places = (_in_stretches() * (x.shape[0] / _SAMPLE)).astype(np.int64)
    sample: _Numbers = np.abs(x[np.minimum(places, x.shape[0] - 1)])
    sample[np.isnan(sample)] = 0.0
    return sample


@cache
def _in_stretches() -> _Numbers:
    """Return a random number from i to i + 1 for every i = 0 .. _SAMPLE - 1, always the same."""
    places: _Numbers = np.arange(_SAMPLE) + random_generator(("sample",)).random(_SAMPLE)
    return places


def _where(x: _Numbers, passed_over: Callable[[_Numbers, _Numbers], object], most: int | None = None) -> _Numbers:
    """Return the positions of 1-D x that are not passed over, all or the first `most`.

    Args:
        x: the numbers.
        passed_over: given |x| of a piece, marks in its second argument which are passed over; NaN is below nothing.
        most: how many are enough.
    """
    magnitudes, marks = np.empty(_PIECE, x.dtype), np.empty(_PIECE, np.bool_)
    found: list[_Numbers] = []
    missing = x.shape[0] if most is None else most
    for start in range(0, x.shape[0], _PIECE):
        if missing <= 0:
            break
        piece = x[start : start + _PIECE]
        length = piece.shape[0]
        passed_over(np.abs(piece, out=magnitudes[:length]), marks[:length])
        positions = np.flatnonzero(np.logical_not(marks[:length], out=marks[:length]))[:missing] + start
        missing -= positions.shape[0]
        found.append(positions)
    return np.concatenate(found)
