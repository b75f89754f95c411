"""Natural: every element as a power of two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ..contract import Array, Codec, Key, Spec
from ..ops import ArrayOps
from .rounding import packed_size

_MANTISSA = 2**23
# Exponent fields, biased as those of float32, of the largest power of two in a gradient's range.
_TOP = {"float16": 127 + 15}
_LARGEST = 254


@final
@dataclass(frozen=True, repr=False)
class Natural(Codec):
    """Round |x| = f 2^e, 1 <= f < 2, at random to 2^e or 2^(e+1), up with probability f - 1; the sign stays.

    Unbiased: E C(x) = x; and E(C(x) - x)^2 <= x^2 / 8 for every element. Two parts: the exponent field of float32, one
    byte, and the sign, one bit: 9 bits an element, whatever the gradient's type.

    Zero stays zero. Numbers below 2^-126 become 0 or 2^-126 at random, unbiased too. Numbers above the largest power of
    two in range (2^127; 2^15 in float16) become that power, and do not overflow. Infinities stay, NaN becomes one.
    float64 gradients are rounded to float32 first.

    Source: Horvath, Ho, Horvath, Sahu, Canini, Richtarik 2019 (arXiv:1905.10988), section 2.
    """

    def variance_factor(self, spec: Spec) -> float:
        """Return w with E||C(x)||^2 <= w ||x||^2: 9/8, whatever the gradient's size."""
        del spec
        return 1.125

    def encode(self, array: Array, ops: ArrayOps, key: Key = ()) -> tuple[Array, ...]:
        flat = ops.cast(ops.flatten(array), "float32")
        bits = ops.bitcast(ops.abs(flat), "int32")
        exponents = bits // _MANTISSA
        fractions = ops.cast(bits - exponents * _MANTISSA, "float32") * (1.0 / _MANTISSA)
        up = ops.uniform(ops.shape(flat), "float32", key) < fractions
        raised = exponents + ops.cast(up & (exponents < _TOP.get(ops.dtype(array), _LARGEST)), "int32")
        return ops.cast(raised, "uint8"), ops.pack(ops.cast(flat < 0.0, "uint8"), 1)

    def decode(self, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Array:
        powers = ops.bitcast(ops.cast(parts[0], "int32") * _MANTISSA, "float32")
        signs = 1.0 - 2.0 * ops.cast(ops.unpack(parts[1], 1, spec.size), "float32")
        return ops.cast(ops.reshape(powers * signs, spec.shape), spec.dtype)

    def payload(self, spec: Spec) -> tuple[tuple[int, str], ...]:
        return ((spec.size, "uint8"), (packed_size(spec.size, 1), "uint8"))

    def summable(self, spec: Spec) -> bool:
        return False
