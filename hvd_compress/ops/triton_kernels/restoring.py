"""Packed codes made numbers again, and written, or added to others, without memory in between."""

from __future__ import annotations

import triton
import triton.language as tl

from .packing import code


@triton.jit
def restore(
    packed: tl.tensor,
    steps: tl.tensor,
    out: tl.tensor,
    size: tl.tensor,
    bucket: tl.tensor,
    WIDTH: tl.constexpr,
    STRIDE: tl.constexpr,
    LEVELS: tl.constexpr,
    LONG: tl.constexpr,
    GROUPS: tl.constexpr,
) -> None:
    """Write (STRIDE code - LEVELS) step for `size` codes, a step for every `bucket` of them."""
    number, inside, value = restored(packed, steps, size, bucket, WIDTH, STRIDE, LEVELS, LONG, GROUPS)
    tl.store(out + number, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def add_restored(
    packed: tl.tensor,
    steps: tl.tensor,
    x: tl.tensor,
    size: tl.tensor,
    bucket: tl.tensor,
    WIDTH: tl.constexpr,
    STRIDE: tl.constexpr,
    LEVELS: tl.constexpr,
    LONG: tl.constexpr,
    GROUPS: tl.constexpr,
    DTYPE: tl.constexpr,
    SUBTRACT: tl.constexpr,
) -> None:
    """Add to x, or subtract from it, what `restore` writes into an array of element type DTYPE."""
    number, inside, value = restored(packed, steps, size, bucket, WIDTH, STRIDE, LEVELS, LONG, GROUPS)
    value = value.to(DTYPE).to(x.dtype.element_ty)
    own = tl.load(x + number, mask=inside, other=0.0)
    added = -1.0 * exactly(value) if SUBTRACT else exactly(value)
    tl.store(x + number, (exactly(own) + added).to(x.dtype.element_ty), mask=inside)


@triton.jit
def restored(
    packed: tl.tensor,
    steps: tl.tensor,
    size: tl.tensor,
    bucket: tl.tensor,
    WIDTH: tl.constexpr,
    STRIDE: tl.constexpr,
    LEVELS: tl.constexpr,
    LONG: tl.constexpr,
    GROUPS: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Return the positions of a program's numbers, which of them there are, and the numbers, in the steps' type."""
    start = tl.program_id(0).to(tl.int64) * (8 * GROUPS)
    group = tl.arange(0, GROUPS)[:, None]
    place = tl.arange(0, 8)[None, :]
    inside = start + 8 * group + place < size
    # Dividing 64 bits for every number would take longer than reading them.
    into = start % bucket
    if not LONG:
        into = into.to(tl.int32)
    step = tl.load(steps + (start // bucket + (into + 8 * group + place) // bucket), mask=inside, other=0.0)
    level = STRIDE * code(packed + (start // 8 + group) * WIDTH, place, inside, WIDTH) - LEVELS
    exact = exactly(step)
    return start + 8 * group + place, inside, (level.to(exact.dtype) * exact).to(step.dtype)


@triton.jit
def exactly(value: tl.tensor) -> tl.tensor:
    """Return float16 and bfloat16 as float32, whose results, rounded, are those that they have themselves."""
    return value if value.dtype == tl.float64 else value.to(tl.float32)
