"""Signs, a bit each, and sums over rows of the same numbers, which are read once."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def signs_and_sums(
    x: tl.tensor,
    bits: tl.tensor,
    sums: tl.tensor,
    size: tl.tensor,
    width: tl.tensor,
    tiles: tl.tensor,
    BITS: tl.constexpr,
    SUMS: tl.constexpr,
    MAGNITUDES: tl.constexpr,
    ROWS: tl.constexpr,
    GROUPS: tl.constexpr,
) -> None:
    """Write whether x >= 0, and the sum of |x|, or of x - x, over each of the `tiles` parts of every row.

    Every program has one part of ROWS rows, of GROUPS groups of 8 numbers. For bits, a row is of whole bytes or the
    only one.
    """
    program = tl.program_id(0)
    row = (program // tiles).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None, None]
    group = (program % tiles).to(tl.int64) * GROUPS + tl.arange(0, GROUPS)[None, :, None]
    place = tl.arange(0, 8)[None, None, :]
    column = 8 * group + place
    number = row * width + column
    inside = (column < width) & (number < size)
    value = tl.load(x + number, mask=inside, other=-1.0)
    if BITS:
        byte = tl.sum((value >= 0.0).to(tl.int32) << place, axis=2, keep_dims=True)
        written = (8 * group < width) & (row * width + 8 * group < size)
        tl.store(bits + row * (width // 8) + group, byte.to(tl.uint8), mask=written)
    if SUMS:
        magnitude = tl.abs(value.to(sums.dtype.element_ty))
        if not MAGNITUDES:
            # What x - x is, which a compiler may take for 0.
            magnitude = tl.where(magnitude < float("inf"), 0.0, float("nan")).to(sums.dtype.element_ty)
        total = tl.sum(tl.sum(tl.where(inside, magnitude, 0.0), axis=2, keep_dims=True), axis=1, keep_dims=True)
        tl.store(sums + row * tiles + program % tiles, total, mask=row * width < size)
