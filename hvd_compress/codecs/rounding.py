"""What quantisers share: scales that are safe at any magnitude, and numbers of whole levels packed into bits."""

from __future__ import annotations

import math

from ..contract import Array, Spec, check_at_least
from ..errors import ConfigurationError
from ..ops import ArrayOps

# Numbers of levels that fit, with sign, into a byte.
MOST_LEVELS = 127
# A deviation of this share of the largest number is one of rounding in float32.
CONSTANT = 1e-6


def check_levels(owner: object, levels: object) -> None:
    """Raise unless `levels` is a whole number that fits, with sign, into a byte."""
    check_at_least(owner, "levels", levels, 1)
    if isinstance(levels, int) and levels > MOST_LEVELS:
        raise ConfigurationError(
            f"{type(owner).__name__}(levels={levels!r}): levels must be a whole number of at most {MOST_LEVELS}."
        )


def in_buckets(flat: Array, bucket: int, ops: ArrayOps) -> Array:
    """Return a 1-D array as rows of `bucket` elements (all of them for 0), the last row filled up with zeros."""
    size = ops.shape(flat)[0]
    width = min(bucket, size) if bucket else size
    if width == 0:
        return ops.reshape(flat, (0, 1))
    count = -(-size // width)
    return ops.reshape(ops.padded(flat, count * width), (count, width))


def bucket_count(size: int, bucket: int) -> int:
    """Return the number of rows that `in_buckets` makes of `size` elements."""
    if not bucket or size == 0:
        return min(size, 1)
    return -(-size // min(bucket, size))


def normalised(rows: Array, largest: Array, ops: ArrayOps) -> tuple[Array, Array]:
    """Return rows / largest, all in -1 .. 1, and which rows that holds for: others become zeros.

    The square of a number may be out of range where the number is not; the square of its share of the largest is in it.
    """
    usable = (largest > 0.0) & (largest < math.inf)
    return ops.where(usable, rows / ops.where(usable, largest, 1.0), 0.0), usable


def signed_level_codes(shares: Array, uniforms: Array, levels: int, ops: ArrayOps) -> Array:
    """Return levels + sign(x) floor(levels |x| + u) for shares x in -1 .. 1: whole numbers from 0 to 2 levels."""
    raised = ops.minimum(ops.floor(ops.abs(shares) * float(levels) + uniforms), float(levels))
    return ops.where(shares < 0.0, float(levels) - raised, float(levels) + raised)


def code_width(levels: int) -> int:
    """Return the bits that a number from 0 to 2 levels takes."""
    return (2 * levels).bit_length()


def packed_size(size: int, width: int) -> int:
    """Return the bytes that `ops.pack` makes of `size` numbers."""
    return -(-size // 8) * width


def clipped(flat: Array, clip: float, ops: ArrayOps) -> Array:
    """Return 1-D x cut to plus and minus `clip` standard deviations of x; x itself where it is constant.

    A constant has a deviation of 0, or of rounding; cut to that, it would be wiped out.
    """
    size = ops.shape(flat)[0]
    if not clip or size < 2:
        return flat
    largest = ops.max(ops.abs(flat))
    scale = ops.where((largest > 0.0) & (largest < math.inf), largest, 1.0)
    shares = flat / scale
    deviations = shares - ops.sum(shares) / size
    sigma = ops.sqrt(ops.sum(deviations * deviations) / size)
    limit = ops.where(sigma > CONSTANT, sigma * clip, math.inf)
    return ops.maximum(ops.minimum(shares, limit), -limit) * scale


def restored(codes: Array, steps: Array, spec: Spec, bucket: int, levels: int, ops: ArrayOps) -> Array:
    """Return (code - levels) step, with one step a bucket, in the gradient's shape and element type."""
    numbers = in_buckets(ops.cast(codes, ops.dtype(steps)) - float(levels), bucket, ops)
    values = ops.flatten(numbers * ops.reshape(steps, (-1, 1)))[: spec.size]
    return ops.cast(ops.reshape(values, spec.shape), spec.dtype)
