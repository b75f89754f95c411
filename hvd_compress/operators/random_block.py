"""RandomBlock: consecutive elements from a position that all ranks draw alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ..contract import Array, Context
from .shared_positions import SharedPositions


@final
@dataclass(frozen=True, repr=False)
class RandomBlock(SharedPositions):
    """Average k = ceil(ratio d) consecutive elements, going on from 0 past the end, from a start drawn at every step.

    mean = (mean of g) on the block, 0 elsewhere; as `RandomK`, with reads and writes side by side in memory and one
    random number a step.

    Args:
        ratio: share of elements that is sent, 0 < ratio <= 1.
        seed: of the draws, equal on all ranks, >= 0.
        min_size: tensors with fewer elements, and those with fewer than 2 dimensions, travel dense.

    Raises:
        ConfigurationError: a setting is out of range.

    Source: the random block baseline of Vogels, Karimireddy, Jaggi 2019 (arXiv:1905.13727).
    """

    ratio: float = 0.01
    seed: int = 0
    min_size: int = 1024

    def draw(self, count: int, context: Context) -> Array:
        ops, size = context.ops, context.spec.size
        start = ops.sample(size, 1, (self.seed, context.name, context.step))
        return (ops.arange(count) + start) % size
