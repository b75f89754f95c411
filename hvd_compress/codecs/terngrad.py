"""TernGrad: every element as -1, 0 or 1 times the largest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from ..contract import Array, Key, Spec, check_finite, wide_dtype
from ..errors import ConfigurationError
from ..ops import ArrayOps, Coding, Cut
from .piecewise import Piecewise
from .rounding import clipping_bound, level_codes, normalised, packed_size

_WIDTH = 2


@final
@dataclass(frozen=True, repr=False)
class TernGrad(Piecewise):
    """C(x)_i = m floor(g_i / m + u_i), u uniform in (0, 1), m = max|g|, g = x clipped at c sigma.

    That is m sign(g_i) with probability |g_i| / m, else 0 (to within 2^-17: u has 16 bits). sigma is the standard
    deviation of x around its mean, and clipping makes the update smaller where there are outliers: C is unbiased with
    c = 0 only, and then E||C(x) - x||^2 <= (sqrt(d) - 1)/2 ||x||^2. Where sigma is 0, for a constant or for one
    element, nothing is clipped; a gradient whose mean is far above its deviation loses most of it, and wants c = 0.
    Zeros stay zeros; with an infinity or a NaN everything comes back as NaN.

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

    def _encode(self, array: Array, ops: ArrayOps, key: Key) -> tuple[Array, ...]:
        flat = ops.cast(ops.flatten(array), wide_dtype(ops.dtype(array)))
        size, dtype = ops.shape(flat)[0], ops.dtype(flat)
        if size == 0:
            return ops.zeros((0,), "uint8"), ops.zeros((0,), dtype)
        bound = ops.reshape(clipping_bound(flat, self.clip, ops), (1, 1))
        thresholds = ops.thresholds(dtype, key)

        def part(start: int, stop: int) -> Sequence[Array]:
            # What is beyond the bound has a level beyond 1, and is cut to 1 there.
            shares, _ = normalised(ops.reshape(flat[start:stop], (1, -1)), bound, ops)
            codes = level_codes(ops.flatten(shares), thresholds(start, stop), 1, ops)
            return (ops.pack(codes, _WIDTH),)

        packed = ops.by_pieces(part, size, self.unit, [(packed_size(size, _WIDTH), "uint8")])[0]
        # Zero times a bound that is not finite is NaN.
        return packed, ops.flatten(ops.where(bound < math.inf, bound, bound * 0.0))

    @property
    def unit(self) -> int:
        return 8

    def decoder(self, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Cut:
        return ops.restorer(parts[0], parts[1], Coding(_WIDTH, levels=1), spec.dtype)

    def payload(self, spec: Spec) -> tuple[tuple[int, str], ...]:
        return ((packed_size(spec.size, _WIDTH), "uint8"), (min(spec.size, 1), spec.wide.dtype))

    def summable(self, spec: Spec) -> bool:
        return False
