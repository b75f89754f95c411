"""OneBit: one bit an element, and the mean of each side of zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from ..contract import Array, Key, Spec, wide_dtype
from ..ops import ArrayOps, Cut
from ..ops.codes import in_buckets, packed_codes
from .piecewise import Piecewise
from .rounding import ROW, bucket_count


@final
@dataclass(frozen=True, repr=False)
class OneBit(Piecewise):
    """One bit an element and two values an array: C(x)_i = mean{x_j >= 0} where x_i >= 0, else mean{x_j < 0}.

    Both values are the best there are for these bits: C is a projection, ||x - C(x)||^2 = ||x||^2 - ||C(x)||^2, and
    never further from x than `BlockSign` is.

    ceil(d / 8) bytes and two float32 (float64 for float64 gradients).

    Source: Seide, Fu, Droppo, Li, Yu 2014, section 3.1: threshold 0, values that minimize the squared error.
    """

    def _encode(self, array: Array, ops: ArrayOps, key: Key) -> tuple[Array, ...]:
        flat = ops.flatten(array)
        size, dtype = ops.shape(flat)[0], wide_dtype(ops.dtype(flat))
        if size == 0:
            return ops.zeros((0,), "uint8"), ops.zeros((2,), dtype)

        def part(start: int, stop: int) -> Sequence[Array]:
            own = flat[start:stop]
            x, positive = ops.cast(own, dtype), ops.nonnegative(own)
            sides = (ops.maximum(x, 0.0), ops.minimum(x, 0.0), ops.cast(positive, dtype))
            return ops.pack(positive, 1), *(ops.flatten(ops.sum(in_buckets(side, ROW, ops), 1)) for side in sides)

        rows = (bucket_count(size, ROW), dtype)
        bits, above, below, counts = ops.by_pieces(part, size, ROW, [(-(-size // 8), "uint8"), rows, rows, rows])
        count = ops.reshape(ops.sum(counts), (1,))
        sums = ops.stack([ops.sum(above), ops.sum(below)])
        return bits, sums / ops.maximum(ops.concat([count, size - count]), 1.0)

    @property
    def unit(self) -> int:
        return 8

    def decoder(self, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Cut:
        codes = packed_codes(parts[0], 1, ops)
        above, below = ops.split(ops.cast(parts[1], spec.dtype), [1, 1])
        values = ops.concat([below, above])
        return lambda start, stop: ops.take(values, ops.cast(codes(start, stop), "int64"))

    def payload(self, spec: Spec) -> tuple[tuple[int, str], ...]:
        return ((-(-spec.size // 8), "uint8"), (2, spec.wide.dtype))

    def summable(self, spec: Spec) -> bool:
        return False
