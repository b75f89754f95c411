"""How a gradient is seen as a matrix, shared by the low-rank operators."""

from __future__ import annotations

import math

from ..contract import Array, Context, Spec, check_at_least, check_finite
from ..ops import ArrayOps

# Sums of as many numbers as a factor has rows do not overflow.
_FAR_FROM_OVERFLOW = 2.0**64


def check_factors(owner: object, rank: object, min_saving: object) -> None:
    """Raise unless rank is a whole number >= 1 and min_saving a finite number >= 0."""
    check_at_least(owner, "rank", rank, 1)
    check_finite(owner, "min_saving", min_saving, 0.0)


def used_rank(spec: Spec, rank: int) -> int:
    """Return min(n, m, r): a matrix has no more than that."""
    return min(*spec.matrix_shape, rank)


def as_matrix(grad: Array, spec: Spec, ops: ArrayOps) -> Array:
    """Return the gradient as a matrix (n, m) in at least float32; a view where that is possible."""
    return ops.reshape(ops.cast(grad, spec.wide.dtype), spec.matrix_shape)


def as_gradient(matrix: Array, spec: Spec, ops: ArrayOps) -> Array:
    """Return a matrix in the gradient's shape and element type."""
    return ops.cast(ops.reshape(matrix, spec.shape), spec.dtype)


def free_matrix(context: Context, matrix: Array) -> Array | None:
    """Return memory for the mean, as a matrix in wide numbers: what is spare, or the gradient's where no rest is kept.

    None where there is none.
    """
    if context.spare is None:
        return None if context.feedback else matrix
    return as_matrix(context.spare, context.spec, context.ops) if context.ops.is_row_major(context.spare) else None


def saves(spec: Spec, rank: int, min_saving: float) -> bool:
    """Return whether rank-r factors are smaller than the matrix: (n + m) r min_saving < n m, for 2-D and up.

    With min_saving = 0 every non-empty matrix is factored.
    """
    n, m = spec.matrix_shape
    if len(spec.shape) < 2 or n * m == 0:
        return False
    return (n + m) * used_rank(spec, rank) * min_saving < n * m


def shows_finite(factor: Array, ops: ArrayOps) -> bool:
    """Return whether B M, or B M^T, shows that M and what is left of it without its part along B are finite.

    Every number of M is in some sums of the product, which are not finite where it is not, as 0 inf is NaN. False where
    looking would wait for the device.

    Args:
        factor: the product, for B of orthonormal rows.
        ops: that it belongs to.
    """
    return ops.piecewise and bool(ops.max_abs(factor) < _FAR_FROM_OVERFLOW)


def live_rows(factor: Array, fresh: Array | float, ops: ArrayOps) -> Array:
    """Return the factor with rows scaled to 1 at most, those that are zero or not finite replaced by `fresh`.

    Only the span of the rows matters. A factor is of the gradient's magnitude, so that its next product with a
    gradient would be of its square, and out of range where the gradient is not. The device is not asked.
    """
    largest = ops.row_maxima(factor)
    live = (largest > 0.0) & (largest < math.inf)
    return ops.where(live, factor / ops.where(live, largest, 1.0), fresh)
