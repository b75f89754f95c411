"""Estimates from the count sketch of rotation hashing: the median of a coordinate's buckets, in one pass."""

from __future__ import annotations

import triton
import triton.language as tl

from .flipping import flipped


@triton.jit
def turned_medians(
    table: tl.tensor,
    signs: tl.tuple,
    turns: tl.tensor,
    out: tl.tensor,
    size: tl.tensor,
    blocks: tl.tensor,
    columns: tl.tensor,
    tiles: tl.tensor,
    ROWS: tl.constexpr,
    STEPS: tl.constexpr,
    LENGTH: tl.constexpr,
) -> None:
    """Write the median over j of s_j(i) T[j, (i mod c + t_j(b)) mod c] for every coordinate i of block b.

    Every program has LENGTH coordinates of one block. STEPS are those of `median_steps`.
    """
    block = tl.program_id(0) // tiles
    local = (tl.program_id(0) % tiles).to(tl.int64) * LENGTH + tl.arange(0, LENGTH)
    number = block.to(tl.int64) * columns + local
    inside = (local < columns) & (number < size)
    values: tl.tuple = ()
    for row in tl.static_range(ROWS):
        place = local + tl.load(turns + row * blocks + block)
        place = tl.where(place >= columns, place - columns, place) + row * tl.cast(columns, tl.int64)
        value = tl.load(table + place, mask=inside, other=0.0)
        if row % 8 == 0:
            bits = tl.load(signs[row // 8] + number, mask=inside, other=0)
        values = values + (flipped(value, bits, row % 8),)  # noqa: RUF005 - the compiler knows no unpacking
    for step in tl.static_range(len(STEPS)):
        one = values[STEPS[step][1]]
        other = values[STEPS[step][2]]
        if STEPS[step][0]:
            values = values + (tl.maximum(one, other, propagate_nan=tl.PropagateNan.ALL),)  # noqa: RUF005
        else:
            values = values + (tl.minimum(one, other, propagate_nan=tl.PropagateNan.ALL),)  # noqa: RUF005
    tl.store(out + number, values[len(values) - 1], mask=inside)
