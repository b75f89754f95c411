"""RandomK: elements at positions that all ranks draw alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ..contract import Array, Context
from .shared_positions import SharedPositions


@final
@dataclass(frozen=True, repr=False)
class RandomK(SharedPositions):
    """Average k = ceil(ratio d) elements, drawn anew at every step from (seed, name, step) on all ranks alike.

    mean = (mean of g) at the positions drawn, 0 elsewhere: linear, one allreduce of k values and no positions. It is
    not scaled up, so that it is a contraction (delta = k/d on average) for a memory to be put around.

    Args:
        ratio: share of elements that is sent, 0 < ratio <= 1.
        seed: of the draws, equal on all ranks, >= 0.
        min_size: tensors with fewer elements, and those with fewer than 2 dimensions, travel dense.

    Raises:
        ConfigurationError: a setting is out of range.

    Source: Stich, Cordonnier, Jaggi 2018 (arXiv:1809.07599), rand_k.
    """

    ratio: float = 0.01
    seed: int = 0
    min_size: int = 1024

    def draw(self, count: int, context: Context) -> Array:
        return context.ops.sample(context.spec.size, count, (self.seed, context.name, context.step))
