"""Signs turned by bits."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def flipped(value: tl.tensor, bits: tl.tensor, index: tl.tensor) -> tl.tensor:
    """Return float32 or float64 numbers with another sign, be it of zero, where bit `index` of `bits` is set."""
    flag = (bits.to(tl.int32) >> index) & 1
    if value.dtype == tl.float64:
        changed = value.to(tl.int64, bitcast=True) ^ (flag.to(tl.int64) << 63)
    else:
        changed = value.to(tl.int32, bitcast=True) ^ (flag << 31)
    return changed.to(value.dtype, bitcast=True)
