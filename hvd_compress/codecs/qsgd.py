"""QSGD: every element on a random neighbour in a grid between zero and its bucket's norm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

from ..contract import Array, Key, Spec, check_at_least, check_choice, wide_dtype
from ..ops import ArrayOps, Coding, Cut
from ..ops.codes import in_buckets
from .piecewise import Piecewise
from .rounding import (
    bucket_count,
    check_levels,
    code_width,
    level_codes,
    normalised,
    packed_size,
)


@final
@dataclass(frozen=True, repr=False)
class QSGD(Piecewise):
    """Round at random to s steps of a bucket's norm: C(x)_i = norm/s floor(s x_i / norm + u_i), u uniform in (0, 1).

    Unbiased, E C(x) = x (to within 2^-17 of a step: u has 16 bits); and
    E||C(x) - x||^2 <= min(n/s^2, sqrt(n)/s) ||x||^2 for buckets of n elements. A bucket of
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

    def _encode(self, array: Array, ops: ArrayOps, key: Key) -> tuple[Array, ...]:
        flat = ops.flatten(array)
        size, dtype = ops.shape(flat)[0], wide_dtype(ops.dtype(flat))
        if size == 0:
            return ops.zeros((0,), "uint8"), ops.zeros((0,), dtype)
        thresholds = ops.thresholds(dtype, key)

        def part(start: int, stop: int) -> Sequence[Array]:
            rows = in_buckets(ops.cast(flat[start:stop], dtype), self.bucket, ops)
            own = in_buckets(thresholds(start, stop), self.bucket, ops)
            codes, norms = self._encoded_rows(rows, own, ops)
            packed = ops.pack(ops.flatten(codes)[: stop - start], code_width(self.levels))
            return packed, ops.flatten(norms)

        payload = [(packed_size(size, code_width(self.levels)), "uint8"), (bucket_count(size, self.bucket), dtype)]
        return tuple(ops.by_pieces(part, size, self.unit, payload))

    def _encoded_rows(self, rows: Array, thresholds: Array, ops: ArrayOps) -> tuple[Array, Array]:
        """Return the codes and the norms of buckets, one a row."""
        norms = ops.row_norms(rows) if self.norm == "l2" else ops.row_maxima(rows)
        shares, usable = normalised(rows, norms, ops)
        # Zero times a norm that is not finite is NaN, and 0 where the norm is 0.
        return level_codes(shares, thresholds, self.levels, ops), ops.where(usable, norms, norms * 0.0)

    @property
    def unit(self) -> int:
        return math.lcm(8, self.bucket)

    def decoder(self, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Cut:
        coding = Coding(code_width(self.levels), self.levels, self.bucket)
        return ops.restorer(parts[0], parts[1] / self.levels, coding, spec.dtype)

    def payload(self, spec: Spec) -> tuple[tuple[int, str], ...]:
        packed = packed_size(spec.size, code_width(self.levels))
        return ((packed, "uint8"), (bucket_count(spec.size, self.bucket), spec.wide.dtype))

    def summable(self, spec: Spec) -> bool:
        return False
