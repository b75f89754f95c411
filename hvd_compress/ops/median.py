"""The median of a few arrays, element by element, by minima and maxima: far faster than sorting along an axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from .array import Array
    from .base import ArrayOps

_Choice: TypeAlias = Callable[[Any, Any], Any]


def median(rows: Sequence[Array], ops: ArrayOps) -> Array:
    """Return the median of an odd number of arrays of equal shape, element by element; NaN where one is.

    Of any n // 2 + 2 out of n numbers neither the smallest nor the largest can be the median of all n: both are
    dropped, and so on until one is left.
    """
    left = list(rows)
    while len(left) > 1:
        some = len(left) // 2 + 2
        left = _without_extremes(left[:some], ops) + left[some:]
    return left[0]


def _without_extremes(rows: list[Array], ops: ArrayOps) -> list[Array]:
    pairs = list(zip(rows[::2], rows[1::2], strict=False))
    lows = [ops.minimum(a, b) for a, b in pairs]
    highs = [ops.maximum(a, b) for a, b in pairs]
    odd = len(rows) % 2 == 1
    kept = _without_last([*lows, rows[-1]] if odd else lows, ops.maximum, ops.minimum)
    if odd:
        highs.append(kept.pop())
    return kept + _without_last(highs, ops.minimum, ops.maximum)


def _without_last(rows: list[Array], keep: _Choice, carry: _Choice) -> list[Array]:
    """Return all but the extreme that `carry` chooses, which goes from pair to pair."""
    kept, extreme = [], rows[0]
    for i, row in enumerate(rows[1:], start=2):
        kept.append(keep(extreme, row))
        if i < len(rows):
            extreme = carry(extreme, row)
    return kept
