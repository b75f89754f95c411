"""TernGrad: every element as -1, 0 or 1 times the largest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from ..contract import Array, Codec, Key, Spec, check_finite, wide_dtype
from ..errors import ConfigurationError
from ..ops import ArrayOps
from .rounding import clipped, in_buckets, normalised, packed_size, restored

_WIDTH = 2


@final
@dataclass(frozen=True, repr=False)
class TernGrad(Codec):
    """C(x)_i = m sign(g_i) b_i, b_i = 1 with probability |g_i| / m, else 0; m = max|g|, g = x clipped at c sigma.

    sigma is the standard deviation of x around its mean, and clipping makes the update smaller where there are
    outliers: C is unbiased with c = 0 only, and then E||C(x) - x||^2 <= (sqrt(d) - 1)/2 ||x||^2. Where sigma is 0, for
    a constant or for one element, nothing is clipped; a gradient whose mean is far above its deviation loses most of
    it, and wants c = 0. Zeros stay zeros; with an infinity or a NaN everything comes back as NaN.

    Two parts: 2 bits an element, and m as float32 (float64 for float64 gradients).

    Args:
        clip: c, in standard deviations, >= 0; 0 does not clip.

    Raises:
        ConfigurationError: clip is negative or not finite.

    Source: Wen, Xu, Yan, Wu, Wang, Chen, Li 2017 (arXiv:1705.07878), section 3.
    """

    clip: float = 2.5

    def __post_init__(self) -> None:
        check_finite(self, "clip", self.clip, 0.0)

    def variance_factor(self, spec: Spec) -> float:
        """Return w with E||C(x)||^2 <= w ||x||^2 for every x of `spec`: (1 + sqrt(d)) / 2, which some x needs.

        Raises:
            ConfigurationError: with clipping it is not unbiased, and 1/w would be no help.
        """
        if self.clip:
            raise ConfigurationError(f"TernGrad(clip={self.clip!r}): variance_factor needs clip=0, which is unbiased.")
        return (1.0 + math.sqrt(max(spec.size, 1))) / 2.0

    def encode(self, array: Array, ops: ArrayOps, key: Key = ()) -> tuple[Array, ...]:
        flat = ops.cast(ops.flatten(array), wide_dtype(ops.dtype(array)))
        size, dtype = ops.shape(flat)[0], ops.dtype(flat)
        if size == 0:
            return ops.zeros((0,), "uint8"), ops.zeros((0,), dtype)
        row = in_buckets(clipped(flat, self.clip, ops), 0, ops)
        largest = ops.row_maxima(row)
        shares, usable = normalised(row, largest, ops)
        shares = ops.flatten(shares)
        kept = ops.uniform((size,), dtype, key) < ops.abs(shares)
        # 0 for -m, 1 for 0, 2 for m.
        codes = 1 + ops.cast(kept & (shares > 0.0), "uint8") - ops.cast(kept & (shares < 0.0), "uint8")
        return ops.pack(codes, _WIDTH), ops.flatten(ops.where(usable, largest, largest * 0.0))

    def decode(self, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Array:
        return restored(ops.unpack(parts[0], _WIDTH, spec.size), parts[1], spec, 0, 1, ops)

    def accumulate_(self, total: Array, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Array:
        return ops.add_(total, self.decode(parts, spec.wide, ops))

    def payload(self, spec: Spec) -> tuple[tuple[int, str], ...]:
        return ((packed_size(spec.size, _WIDTH), "uint8"), (min(spec.size, 1), spec.wide.dtype))

    def summable(self, spec: Spec) -> bool:
        return False
