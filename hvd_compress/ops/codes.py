"""Numbers as codes of few bits, and back: made of other operations, for libraries without one pass that does it all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from .array import Array, Cut
    from .base import ArrayOps


@final
@dataclass(frozen=True)
class Coding:
    """How packed codes stand for numbers: as (stride code - levels) step.

    Args:
        width: bits of a code, 1 to 8.
        levels: what stands for zero, >= 1.
        bucket: numbers that share a step; 0 for all of them.
        stride: levels from one code to the next, >= 1.
    """

    width: int
    levels: int
    bucket: int = 0
    stride: int = 1


def in_buckets(flat: Array, bucket: int, ops: ArrayOps) -> Array:
    """Return a 1-D array as rows of `bucket` elements (all of them for 0), the last row filled up with zeros."""
    size = ops.shape(flat)[0]
    width = min(bucket, size) if bucket else size
    if width == 0:
        return ops.reshape(flat, (0, 1))
    count = -(-size // width)
    return ops.reshape(ops.padded(flat, count * width), (count, width))


def signs_and_sums(x: Array, width: int, dtype: str, magnitudes: bool, ops: ArrayOps) -> tuple[Array, Array]:
    """Do `ArrayOps.signs_and_sums`."""
    wide = ops.cast(x, dtype)
    sums = ops.sum(in_buckets(ops.abs(wide) if magnitudes else wide - wide, width, ops), 1)
    return ops.pack(ops.nonnegative(x), 1), ops.flatten(sums)


def packed_codes(packed: Array, width: int, ops: ArrayOps) -> Cut:
    """Return what unpacks numbers start .. stop - 1 of those that `ops.pack` put into `packed`; 8 divides start."""
    return lambda start, stop: ops.unpack(packed[start // 8 * width : -(-stop // 8) * width], width, stop - start)


def restorer(codes: Cut, steps: Array, dtype: str, bucket: int, levels: int, ops: ArrayOps, *, stride: int = 1) -> Cut:
    """Return what makes (stride code - levels) step of codes start .. stop - 1, one step a bucket; start begins one."""

    def cut(start: int, stop: int) -> Array:
        signed = ops.scale_and_shift_(ops.cast(codes(start, stop), ops.dtype(steps)), float(stride), -float(levels))
        numbers = in_buckets(signed, bucket, ops)
        own = steps[start // bucket : -(-stop // bucket)] if bucket else steps
        return ops.cast(ops.flatten(ops.scale_(numbers, ops.reshape(own, (-1, 1))))[: stop - start], dtype)

    return cut
