"""Euclidean norms whose squares would leave the range of the element type."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .base import Array, ArrayOps


def norms_of_rows(x: Array, plain: Callable[[Array], Array], ops: ArrayOps) -> Array:
    """Return the norm of each row, as a column: (r, m) -> (r, 1).

    Rows whose largest number is very small or very large are multiplied by a power of 2 first, which rounds nothing. On
    a processor that is looked for, and nearly never needed.

    Args:
        x: float32 or float64.
        plain: returns the norms of rows whose squares are in range.
        ops: that x belongs to.
    """
    dtype = ops.dtype(x)
    # Up to 2^bits: squares of numbers from 2^(-3/8 bits) to 2^(3/8 bits), also their sums, are in range and exact.
    bits = np.finfo(dtype).maxexp
    small, large, shift = 2.0 ** (-3 * bits // 8), 2.0 ** (3 * bits // 8), 2.0 ** (3 * bits // 4)
    if ops.piecewise:
        found = plain(x)
        if ((found > small) & (found < large)).all():
            return found
    largest = ops.row_maxima(x)
    ones = ops.zeros(ops.shape(largest), dtype) + 1.0
    factors = ops.where(largest < small, shift, ops.where(largest > large, 1.0 / shift, ones))
    return plain(x * factors) / factors
