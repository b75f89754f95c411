"""BlockSign: the signs of a gradient, one bit each, and one magnitude for all of a block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ..contract import Array, Codec, Key, Spec, check_at_least, wide_dtype
from ..errors import ConfigurationError
from ..ops import ArrayOps
from .rounding import bucket_count, in_buckets


@final
@dataclass(frozen=True, repr=False)
class BlockSign(Codec):
    """One bit an element and one scale a block: C(x) = mean|x| sign(x) in each block, with sign(0) = +1.

    Blocks are consecutive elements of the array that is encoded: a tensor, a joined unit, or the shard of one that
    `TwoWay` cuts. It is a contraction: ||x - C(x)||^2 = (1 - delta) ||x||^2 in a block, with
    delta = ||x||_1^2 / (n ||x||_2^2) >= 1/n for n elements.

    ceil(d / 8) bytes and one float32 (float64 for float64 gradients) a block.

    Args:
        block: elements of a block, the last one shorter; 0 makes the whole array one block.
        scaled: multiply by mean|x|. Otherwise C(x) = sign(x), which is a direction and no estimate of x: averages of
            such signs are votes. The one scale that travels is then 1, or NaN where x is not finite: all see it.

    Raises:
        ConfigurationError: block is negative, or given without scales.

    Source: Zheng, Huang, Kwok 2019 (arXiv:1905.10936), section 3.3; Bernstein et al. 2018 (arXiv:1802.04434) for signs.
    """

    block: int = 0
    scaled: bool = True

    def __post_init__(self) -> None:
        check_at_least(self, "block", self.block, 0)
        if self.block and not self.scaled:
            raise ConfigurationError(
                f"BlockSign(block={self.block!r}, scaled=False): signs without scale have no blocks; leave one of the "
                "two out."
            )

    @property
    def votes(self) -> bool:
        return not self.scaled

    def encode(self, array: Array, ops: ArrayOps, key: Key = ()) -> tuple[Array, ...]:
        flat = ops.flatten(array)
        bits = ops.pack(ops.cast(flat >= 0, "uint8"), 1)
        x = ops.cast(flat, wide_dtype(ops.dtype(flat)))
        if not self.scaled:
            return bits, ops.reshape(ops.sum(x - x), (1,)) + 1.0
        rows = in_buckets(ops.abs(x), self.block, ops)
        count, width = ops.shape(rows)
        if not count:
            return bits, ops.zeros((1,), ops.dtype(x))
        last = ops.shape(x)[0] - width * (count - 1)
        sizes = ops.where(ops.arange(count) < count - 1, float(width), float(last))
        return bits, ops.flatten(ops.sum(rows, 1)) / ops.cast(sizes, ops.dtype(x))

    def decode(self, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Array:
        positive = in_buckets(ops.unpack(parts[0], 1, spec.size), self.block if self.scaled else 0, ops) > 0
        scales = ops.reshape(ops.cast(parts[1], spec.dtype), (-1, 1))
        return ops.reshape(ops.flatten(ops.where(positive, scales, -scales))[: spec.size], spec.shape)

    def accumulate_(self, total: Array, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Array:
        # Sums are wide, so the scale need not be rounded to the gradient's type first.
        return ops.add_(total, self.decode(parts, spec.wide, ops))

    def payload(self, spec: Spec) -> tuple[tuple[int, str], ...]:
        return ((-(-spec.size // 8), "uint8"), (max(1, bucket_count(spec.size, self.block)), spec.wide.dtype))

    def summable(self, spec: Spec) -> bool:
        return False
