"""Where the largest magnitude of every row is, by one reading."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def argmax_abs(
    x: tl.tensor, best: tl.tensor, rows: tl.tensor, width: tl.tensor, ROWS: tl.constexpr, COLUMNS: tl.constexpr
) -> None:
    """Write for every row the position of its largest |x|, the first of several; NaN is largest.

    Every program has ROWS rows, and goes over COLUMNS numbers of each at once.
    """
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)[None, :]
    largest = tl.full((ROWS,), -1, tl.int64)
    place = tl.zeros((ROWS,), tl.int32)
    for start in range(0, width, COLUMNS):
        inside = (row < rows)[:, None] & (start + column < width)
        value = tl.load(x + row[:, None] * width + (start + column), mask=inside, other=0.0)
        found, at = tl.max(tl.where(inside, order_of(value), -1), axis=1, return_indices=True)
        better = found > largest
        place = tl.where(better, start + at, place)
        largest = tl.where(better, found, largest)
    tl.store(best + row, place.to(tl.int64), mask=row < rows)


@triton.jit
def order_of(value: tl.tensor) -> tl.tensor:
    """Return int64 numbers that are ordered as magnitudes are, all NaN alike and above infinity."""
    magnitude = tl.abs(value)
    # The bits of numbers >= 0 are in their order.
    if value.dtype == tl.float64:
        bits = magnitude.to(tl.int64, bitcast=True)
    else:
        bits = magnitude.to(tl.float32).to(tl.int32, bitcast=True).to(tl.int64)
    return tl.where(value == value, bits, 0x7FFFFFFFFFFFFFFF)
