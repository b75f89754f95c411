"""Euclidean norms whose squares would leave the range of the element type."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .array import Array
    from .base import ArrayOps


def norms_of_rows(x: Array, plain: Callable[[Array], Array], ops: ArrayOps) -> Array:
    """Return the norm of each row, as a column: (r, m) -> (r, 1).

    Rows whose largest number is very small or very large are multiplied by a power of 2 first, which rounds nothing. On
    a processor that is looked for, and done to those rows alone.

    Args:
        x: float32 or float64.
        plain: returns the norms of rows whose squares are in range.
        ops: that x belongs to.
    """
    small, large, _ = _limits(ops.dtype(x))
    if ops.piecewise:
        found = plain(x)
        safe = ((found > small) & (found < large))[:, 0]
        if not safe.all():
            found[~safe] = _scaled_norms(x[~safe], plain, ops)
        return found
    return _scaled_norms(x, plain, ops)


def _scaled_norms(x: Array, plain: Callable[[Array], Array], ops: ArrayOps) -> Array:
    dtype = ops.dtype(x)
    small, large, shift = _limits(dtype)
    largest = ops.row_maxima(x)
    ones = ops.zeros(ops.shape(largest), dtype) + 1.0
    factors = ops.where(largest < small, shift, ops.where(largest > large, 1.0 / shift, ones))
    return plain(x * factors) / factors


@cache
def _limits(dtype: str) -> tuple[float, float, float]:
    """Return between which numbers squares, also many of them together, are in range, and what brings others there."""
    bits = int(np.finfo(dtype).maxexp)
    return 2.0 ** (-3 * bits // 8), 2.0 ** (3 * bits // 8), 2.0 ** (3 * bits // 4)
