"""The count sketch of rotation hashing: every bucket's sum by itself, in the order of blocks, so without atomics."""

from __future__ import annotations

import triton
import triton.language as tl

from .flipping import flipped


@triton.jit
def turned_sums(
    x: tl.tensor,
    signs: tl.tensor,
    turns: tl.tensor,
    table: tl.tensor,
    size: tl.tensor,
    blocks: tl.tensor,
    columns: tl.tensor,
    tiles: tl.tensor,
    LENGTH: tl.constexpr,
) -> None:
    """Write T[j, p] = sum over blocks b of s_j(i) x_i, i = b c + (p - t_j(b)) mod c, for up to 8 rows j.

    Every program has LENGTH buckets of one row, whose signs are bit j of `signs`.
    """
    row = tl.program_id(0) // tiles
    bucket = (tl.program_id(0) % tiles).to(tl.int64) * LENGTH + tl.arange(0, LENGTH)
    total = tl.zeros((LENGTH,), x.dtype.element_ty)
    for block in range(blocks):
        place = bucket - tl.load(turns + row * blocks + block)
        number = tl.where(place < 0, place + columns, place) + tl.cast(block, tl.int64) * columns
        inside = (bucket < columns) & (number < size)
        value = tl.load(x + number, mask=inside, other=0.0)
        bits = tl.load(signs + number, mask=inside, other=0)
        total += tl.where(inside, flipped(value, bits, row), 0.0)
    tl.store(table + tl.cast(row, tl.int64) * columns + bucket, total, mask=bucket < columns)
