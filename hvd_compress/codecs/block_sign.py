"""BlockSign: the signs of a gradient, one bit each, and one magnitude for all of a block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from ..contract import Array, Key, Spec, check_at_least, wide_dtype
from ..errors import ConfigurationError
from ..ops import ArrayOps, Coding, Cut
from .piecewise import Piecewise
from .rounding import ROW, bucket_count


@final
@dataclass(frozen=True, repr=False)
class BlockSign(Piecewise):
    """One bit an element and one scale a block: C(x) = mean|x| sign(x) in each block, with sign(0) = +1.

    Blocks are consecutive elements of the array that is encoded: a tensor, a joined unit, or the shard of one that
    `TwoWay` cuts. It is a contraction: ||x - C(x)||^2 = (1 - delta) ||x||^2 in a block, with
    delta = ||x||_1^2 / (n ||x||_2^2) >= 1/n for n elements.

    ceil(d / 8) bytes and one float32 (float64 for float64 gradients) a block.

    Args:
        block: elements of a block, the last one shorter; 0 makes the whole array one block.
        scaled: multiply by mean|x|. Otherwise C(x) = sign(x), which is a direction and no estimate of x: averages of
            such signs are votes. The one scale that travels is then 1, or NaN where x is not finite: all see it.
        min_size: tensors with fewer elements travel dense; 0: none do.

    Raises:
        ConfigurationError: block or min_size is negative, or block is given without scales.

    Source: Zheng, Huang, Kwok 2019 (arXiv:1905.10936), section 3.3; Bernstein et al. 2018 (arXiv:1802.04434) for signs.
    """

    block: int = 0
    scaled: bool = True
    min_size: int = 0

    def __post_init__(self) -> None:
        check_at_least(self, "block", self.block, 0)
        check_at_least(self, "min_size", self.min_size, 0)
        if self.block and not self.scaled:
            raise ConfigurationError(
                f"BlockSign(block={self.block!r}, scaled=False): signs without scale have no blocks; leave one of the "
                "two out."
            )

    @property
    def votes(self) -> bool:
        return not self.scaled

    def compresses(self, spec: Spec) -> bool:
        return spec.size >= self.min_size

    @property
    def block_length(self) -> int:
        return self.block

    def _encode(self, array: Array, ops: ArrayOps, key: Key) -> tuple[Array, ...]:
        flat = ops.flatten(array)
        size, dtype = ops.shape(flat)[0], wide_dtype(ops.dtype(flat))
        if size == 0:
            return ops.zeros((0,), "uint8"), ops.zeros((1,), dtype)
        width = self.block or ROW

        def part(start: int, stop: int) -> Sequence[Array]:
            return ops.signs_and_sums(flat[start:stop], width, dtype, self.scaled)

        count = bucket_count(size, width)
        bits, sums = ops.by_pieces(part, size, math.lcm(8, width), [(-(-size // 8), "uint8"), (count, dtype)])
        if not self.scaled:
            return bits, ops.reshape(ops.sum(sums), (1,)) + 1.0
        if not self.block:
            return bits, ops.reshape(ops.sum(sums), (1,)) / size
        shorter = min(width, size)
        sizes = ops.where(ops.arange(count) < count - 1, float(shorter), float(size - shorter * (count - 1)))
        return bits, sums / ops.cast(sizes, dtype)

    @property
    def unit(self) -> int:
        return math.lcm(8, self.block or 8)

    def decoder(self, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Cut:
        # Bits 0 and 1 are -1 and +1.
        coding = Coding(width=1, levels=1, bucket=self.block, stride=2)
        return ops.restorer(parts[0], ops.cast(parts[1], spec.dtype), coding, spec.dtype)

    def payload(self, spec: Spec) -> tuple[tuple[int, str], ...]:
        return ((-(-spec.size // 8), "uint8"), (max(1, bucket_count(spec.size, self.block)), spec.wide.dtype))

    def summable(self, spec: Spec) -> bool:
        return False
