"""Natural: every element as a power of two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from ..contract import Array, Key, Spec
from ..ops import ArrayOps, Cut
from ..ops.codes import packed_codes
from .piecewise import Piecewise
from .rounding import packed_size

# Bits of the fraction of float32.
_MANTISSA = 23
# Exponent fields, biased as those of float32, of the largest power of two in a gradient's range.
_TOP = {"float16": 127 + 15}
_LARGEST = 254


@final
@dataclass(frozen=True, repr=False)
class Natural(Piecewise):
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

    def _encode(self, array: Array, ops: ArrayOps, key: Key) -> tuple[Array, ...]:
        flat = ops.flatten(array)
        size, top = ops.shape(flat)[0], _TOP.get(ops.dtype(array), _LARGEST)
        uniforms = ops.uniform((size,), "float32", key)

        def part(start: int, stop: int) -> Sequence[Array]:
            x = ops.cast(flat[start:stop], "float32")
            bits = ops.bitcast(ops.abs(x), "int32")
            exponents = ops.bit_field(bits, _MANTISSA, 8)
            fractions = ops.scale_(ops.cast(ops.bit_field(bits, 0, _MANTISSA), "float32"), 2.0**-_MANTISSA)
            up = (uniforms[start:stop] < fractions) & (exponents < top)
            raised = exponents + ops.cast(up, "int32")
            return ops.cast(raised, "uint8"), ops.pack(ops.cast(x < 0.0, "uint8"), 1)

        return tuple(ops.by_pieces(part, size, 8, self.payload(Spec((size,)))))

    @property
    def unit(self) -> int:
        return 8

    def decoder(self, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Cut:
        negative = packed_codes(parts[1], 1, ops)

        def cut(start: int, stop: int) -> Array:
            powers = ops.bitcast(ops.cast(parts[0][start:stop], "int32") * 2**_MANTISSA, "float32")
            signs = ops.scale_and_shift_(ops.cast(negative(start, stop), "float32"), -2.0, 1.0)
            return ops.cast(ops.scale_(signs, powers), spec.dtype)

        return cut

    def payload(self, spec: Spec) -> tuple[tuple[int, str], ...]:
        return ((spec.size, "uint8"), (packed_size(spec.size, 1), "uint8"))

    def summable(self, spec: Spec) -> bool:
        return False
