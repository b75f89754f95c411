"""QSGD: every element on a random neighbour in a grid between zero and its bucket's norm."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, final

from ..contract import Array, Codec, Key, Spec, check_at_least, check_choice, wide_dtype
from ..ops import ArrayOps
from .rounding import (
    bucket_count,
    check_levels,
    code_width,
    in_buckets,
    normalised,
    packed_size,
    restored,
    signed_level_codes,
)


@final
@dataclass(frozen=True, repr=False)
class QSGD(Codec):
    """Round at random to s steps of a bucket's norm: C(x)_i = norm/s sign(x_i) floor(s |x_i| / norm + u_i), u uniform.

    Unbiased: E C(x) = x; and E||C(x) - x||^2 <= min(n/s^2, sqrt(n)/s) ||x||^2 for buckets of n elements. A bucket of
    zeros stays zeros; one with an infinity or a NaN comes back as NaN. Two parts: a number from 0 to 2 s for every
    element, in ceil(log2(2 s + 1)) bits, and one norm a bucket: float32 (float64 for float64 gradients).

    Args:
        levels: s, 1 to 127; 1, 3, 7, 15 leave no bit unused: 2, 3, 4 and 5 of them an element.
        bucket: consecutive elements that share a norm, >= 1; the last bucket may have fewer.
        norm: "l2" as in the paper, or "max": more bits for every element where buckets are large.

    Raises:
        ConfigurationError: a setting is out of range.

    Source: Alistarh, Grubic, Li, Tomioka, Vojnovic 2017 (arXiv:1610.02132), section 3 and 4.
    """

    levels: int = 7
    bucket: int = 512
    norm: Literal["l2", "max"] = "l2"

    def __post_init__(self) -> None:
        check_levels(self, self.levels)
        check_at_least(self, "bucket", self.bucket, 1)
        check_choice(self, "norm", self.norm, ("l2", "max"))

    def variance_factor(self, spec: Spec) -> float:
        """Return w with E||C(x)||^2 <= w ||x||^2 for every x of `spec`, such as `Scaled(codec, 1 / w)` needs.

        A step's fraction f adds f (1 - f) <= min(1/4, f) steps squared: w = 1 + min(n / (4 s^2), sqrt(n) / s).
        """
        n = min(spec.size, self.bucket)
        return 1.0 + min(n / (4.0 * self.levels**2), math.sqrt(n) / self.levels)

    def encode(self, array: Array, ops: ArrayOps, key: Key = ()) -> tuple[Array, ...]:
        flat = ops.cast(ops.flatten(array), wide_dtype(ops.dtype(array)))
        size, dtype = ops.shape(flat)[0], ops.dtype(flat)
        rows = in_buckets(flat, self.bucket, ops)
        largest = ops.row_maxima(rows)
        shares, usable = normalised(rows, largest, ops)
        norms = largest
        if self.norm == "l2":
            root = ops.where(usable, ops.sqrt(ops.sum(shares * shares, axis=1)), 1.0)
            shares, norms = shares / root, largest * root
        uniforms = in_buckets(ops.uniform((size,), dtype, key), self.bucket, ops)
        codes = ops.flatten(signed_level_codes(shares, uniforms, self.levels, ops))[:size]
        # Zero times a norm that is not finite is NaN, and 0 where the norm is 0.
        sent = ops.flatten(ops.where(usable, norms, largest * 0.0))
        return ops.pack(ops.cast(codes, "uint8"), code_width(self.levels)), sent

    def decode(self, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Array:
        codes = ops.unpack(parts[0], code_width(self.levels), spec.size)
        return restored(codes, parts[1] / self.levels, spec, self.bucket, self.levels, ops)

    def accumulate_(self, total: Array, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Array:
        # Sums are wide: the numbers need not be rounded to the gradient's type, nor fit into its range.
        return ops.add_(total, self.decode(parts, spec.wide, ops))

    def payload(self, spec: Spec) -> tuple[tuple[int, str], ...]:
        packed = packed_size(spec.size, code_width(self.levels))
        return ((packed, "uint8"), (bucket_count(spec.size, self.bucket), spec.wide.dtype))

    def summable(self, spec: Spec) -> bool:
        return False
