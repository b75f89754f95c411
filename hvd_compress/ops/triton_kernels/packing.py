"""Numbers of few bits, 8 of them put into as many bytes as one has bits, and taken out again."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def pack(x: tl.tensor, packed: tl.tensor, size: tl.tensor, WIDTH: tl.constexpr, GROUPS: tl.constexpr) -> None:
    """Put `size` numbers below 2^WIDTH into WIDTH bits each; every program GROUPS groups of 8."""
    group = tl.program_id(0).to(tl.int64) * GROUPS + tl.arange(0, GROUPS)[:, None]
    place = tl.arange(0, 8)[None, :]
    number = 8 * group + place
    fields = tl.load(x + number, mask=number < size, other=0).to(tl.int64) << (WIDTH * place).to(tl.int64)
    # No two of them share a bit.
    word = tl.sum(fields, axis=1)[:, None]
    bytes_of_word = (word >> (8 * place).to(tl.int64)) & 255
    tl.store(packed + WIDTH * group + place, bytes_of_word.to(tl.uint8), mask=(place < WIDTH) & (8 * group < size))


@triton.jit
def unpack(packed: tl.tensor, x: tl.tensor, size: tl.tensor, WIDTH: tl.constexpr, GROUPS: tl.constexpr) -> None:
    """Take `size` numbers out again."""
    group = tl.program_id(0).to(tl.int64) * GROUPS + tl.arange(0, GROUPS)[:, None]
    place = tl.arange(0, 8)[None, :]
    number = 8 * group + place
    inside = number < size
    tl.store(x + number, code(packed + WIDTH * group, place, inside, WIDTH).to(tl.uint8), mask=inside)


@triton.jit
def code(group: tl.tensor, place: tl.tensor, inside: tl.tensor, WIDTH: tl.constexpr) -> tl.tensor:
    """Return the number at a place of a group of 8, as int32: it lies in one byte, or in two."""
    first = WIDTH * place
    low = tl.load(group + first // 8, mask=inside, other=0).to(tl.int32)
    if 8 % WIDTH != 0:
        high = tl.load(group + first // 8 + 1, mask=inside & (first // 8 + 1 < WIDTH), other=0).to(tl.int32)
        low = low | (high << 8)
    return (low >> (first % 8)) & ((1 << WIDTH) - 1)
