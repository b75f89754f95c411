"""BlockSign: the signs of a gradient, one bit each, and one magnitude for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ..contract import Array, Codec, Key, Spec, wide_dtype
from ..ops import ArrayOps


@final
@dataclass(frozen=True, repr=False)
class BlockSign(Codec):
    """One bit an element and one scale an array: C(x) = mean|x| sign(x), with sign(0) = +1.

    The array that is encoded is the block: a tensor, a joined unit, or the shard of one that `TwoWay` cuts. It is a
    contraction: ||x - C(x)||^2 = (1 - delta) ||x||^2 with delta = ||x||_1^2 / (d ||x||_2^2) >= 1/d.

    ceil(d / 8) bytes and one float32 (float64 for float64 gradients).

    Args:
        scaled: multiply by mean|x|. Otherwise C(x) = sign(x), which is a direction and no estimate of x: averages of
            such signs are votes. The scale that travels is then 1, or NaN where x is not finite, so that all see it.

    Source: Zheng, Huang, Kwok 2019 (arXiv:1905.10936), section 3.3; Bernstein et al. 2018 (arXiv:1802.04434) for signs.
    """

    scaled: bool = True

    @property
    def votes(self) -> bool:
        return not self.scaled

    def encode(self, array: Array, ops: ArrayOps, key: Key = ()) -> tuple[Array, ...]:
        flat = ops.flatten(array)
        bits = ops.pack(ops.cast(flat >= 0, "uint8"), 1)
        x = ops.cast(flat, wide_dtype(ops.dtype(flat)))
        if self.scaled:
            return bits, ops.reshape(ops.sum(ops.abs(x)), (1,)) / max(1, ops.shape(x)[0])
        return bits, ops.reshape(ops.sum(x - x), (1,)) + 1.0

    def decode(self, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Array:
        bits, scale = parts[0], ops.cast(parts[1], spec.dtype)
        positive = ops.unpack(bits, 1, spec.size) > 0
        return ops.reshape(ops.where(positive, scale, -scale), spec.shape)

    def accumulate_(self, total: Array, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Array:
        # Sums are wide, so the scale need not be rounded to the gradient's type first.
        return ops.add_(total, self.decode(parts, spec.wide, ops))

    def payload(self, spec: Spec) -> tuple[tuple[int, str], ...]:
        return ((-(-spec.size // 8), "uint8"), (1, spec.wide.dtype))

    def summable(self, spec: Spec) -> bool:
        return False
