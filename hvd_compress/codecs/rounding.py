"""What quantisers share: scales that are safe at any magnitude, and numbers of whole levels packed into bits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ..contract import Array, check_at_least
from ..errors import ConfigurationError
from ..ops import ArrayOps
from ..ops.codes import in_buckets

# Numbers of levels that fit, with sign, into a byte.
MOST_LEVELS = 127
# A deviation of this share of the largest number is one of rounding in float32.
CONSTANT = 1e-6
# Elements that are summed up first, where sums are over a whole array: as long as this, pieces give what one gives.
ROW = 2**12


def check_levels(owner: object, levels: object) -> None:
    """Raise unless `levels` is a whole number that fits, with sign, into a byte."""
    check_at_least(owner, "levels", levels, 1)
    if isinstance(levels, int) and levels > MOST_LEVELS:
        raise ConfigurationError(
            f"{type(owner).__name__}(levels={levels!r}): levels must be a whole number of at most {MOST_LEVELS}."
        )


def bucket_count(size: int, bucket: int) -> int:
    """Return the number of rows that `in_buckets` makes of `size` elements."""
    if not bucket or size == 0:
        return min(size, 1)
    return -(-size // min(bucket, size))


def normalised(rows: Array, scales: Array, ops: ArrayOps) -> tuple[Array, Array]:
    """Return rows / scales, all in -1 .. 1, and which rows that holds for: others become zeros.

    A scale is a number for each row, not below the largest of it.
    """
    usable = (scales > 0.0) & (scales < math.inf)
    return ops.keep_rows_(rows / ops.where(usable, scales, 1.0), usable), usable


def level_codes(x: Array, thresholds: Array, levels: int, ops: ArrayOps) -> Array:
    """Return levels + floor(levels x + u), cut to 0 .. 2 levels, as uint8, for donated x and u = `thresholds`."""
    signed = ops.cast(ops.rounded_(x, thresholds, float(levels)), "int8")
    return ops.add_(ops.bitcast(signed, "uint8"), levels)


def code_width(levels: int) -> int:
    """Return the bits that a number from 0 to 2 levels takes."""
    return (2 * levels).bit_length()


def packed_size(size: int, width: int) -> int:
    """Return the bytes that `ops.pack` makes of `size` numbers."""
    return -(-size // 8) * width


def clipping_bound(flat: Array, clip: float, ops: ArrayOps) -> Array:
    """Return what the numbers of 1-D x, one or more, are to be cut to, 0-D: `clip` standard deviations, at most max|x|.

    Nothing is to be cut where `clip` is 0, and where x is constant: it has a deviation of 0, or of rounding, and cut to
    that it would be wiped out.
    """
    size = ops.shape(flat)[0]

    def by_rows(reduced: Callable[[Array], Array], made: Callable[[Array], Array]) -> Array:
        def part(start: int, stop: int) -> Sequence[Array]:
            return (ops.flatten(reduced(in_buckets(made(flat[start:stop]), ROW, ops))),)

        return ops.by_pieces(part, size, ROW, [(bucket_count(size, ROW), ops.dtype(flat))])[0]

    def mean_of(made: Callable[[Array], Array]) -> Array:
        return ops.sum(by_rows(lambda rows: ops.sum(rows, 1), made)) / size

    largest = ops.max(by_rows(ops.row_maxima, lambda x: x))
    if not clip or size < 2:
        return largest
    usable = (largest > 0.0) & (largest < math.inf)
    scale = ops.where(usable, largest, 1.0)
    mean = mean_of(lambda x: x / scale)
    sigma = ops.sqrt(mean_of(lambda x: ops.squared_(ops.add_(x / scale, mean, -1.0))))
    limit = ops.where(sigma > CONSTANT, sigma * clip, 1.0)
    return ops.where(usable, ops.minimum(limit, 1.0) * scale, largest)
