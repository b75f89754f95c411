"""OneBit: one bit an element, and the mean of each side of zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ..contract import Array, Codec, Key, Spec, wide_dtype
from ..ops import ArrayOps


@final
@dataclass(frozen=True, repr=False)
class OneBit(Codec):
    """One bit an element and two values an array: C(x)_i = mean{x_j >= 0} where x_i >= 0, else mean{x_j < 0}.

    Both values are the best there are for these bits: C is a projection, ||x - C(x)||^2 = ||x||^2 - ||C(x)||^2, and
    never further from x than `BlockSign` is.

    ceil(d / 8) bytes and two float32 (float64 for float64 gradients).

    Source: Seide, Fu, Droppo, Li, Yu 2014, section 3.1: threshold 0, values that minimize the squared error.
    """

    def encode(self, array: Array, ops: ArrayOps, key: Key = ()) -> tuple[Array, ...]:
        flat = ops.flatten(array)
        positive = ops.nonnegative(flat)
        x = ops.cast(flat, wide_dtype(ops.dtype(flat)))
        above = ops.reshape(ops.sum(ops.cast(positive, ops.dtype(x))), (1,))
        counts = ops.concat([above, ops.shape(x)[0] - above])
        sums = ops.stack([ops.sum(ops.maximum(x, 0.0)), ops.sum(ops.minimum(x, 0.0))])
        return ops.pack(positive, 1), sums / ops.maximum(counts, 1.0)

    def decode(self, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Array:
        values = ops.cast(parts[1], spec.dtype)
        positive = ops.unpack(parts[0], 1, spec.size) > 0
        return ops.reshape(ops.where(positive, values[:1], values[1:]), spec.shape)

    def accumulate_(self, total: Array, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Array:
        # Sums are wide, so the values need not be rounded to the gradient's type first.
        return ops.add_(total, self.decode(parts, spec.wide, ops))

    def payload(self, spec: Spec) -> tuple[tuple[int, str], ...]:
        return ((-(-spec.size // 8), "uint8"), (2, spec.wide.dtype))

    def summable(self, spec: Spec) -> bool:
        return False
