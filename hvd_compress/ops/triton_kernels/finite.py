"""Infinities and NaN made zeros: where there are none, which is nearly always, nothing is written."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def finite_or_zero(x: tl.tensor, size: tl.tensor, LENGTH: tl.constexpr) -> None:
    """Write zeros where x is not finite."""
    number = tl.program_id(0).to(tl.int64) * LENGTH + tl.arange(0, LENGTH)
    inside = number < size
    value = tl.load(x + number, mask=inside, other=0.0)
    finite = tl.abs(value) < float("inf")
    tl.store(x + number, tl.zeros_like(value), mask=inside & (finite == 0))
