"""memory_cosine: whether the workers' residuals point the same way."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..contract import Array
from ..ops import ArrayOps, ops_of


def memory_cosine(memories: Sequence[Array]) -> float:
    """Return the mean cosine over pairs of workers: (||sum_i h_i / ||h_i|| ||^2 - W) / (W (W - 1)).

    Near 1 all workers hold back the same, and one can choose for all; near 0 they have nothing in common.

    Args:
        memories: every worker's residual of one parameter, of one shape: NumPy arrays or torch tensors.

    Returns:
        From -1/(W - 1) to 1; NaN where W = 1 or a residual is zero.
    """
    ops = ops_of(memories[0])
    total = unit_vector(memories[0], ops)
    for memory in memories[1:]:
        total = ops.add_(total, unit_vector(memory, ops))
    return cosine_of_sum(total, len(memories), ops)


def unit_vector(memory: Array, ops: ArrayOps) -> Array:
    """Return a residual divided by its norm, flat, in float64; NaN where it is zero."""
    flat = ops.cast(ops.flatten(memory), "float64")
    largest = ops.max(ops.abs(flat))
    # Divided by its largest number first, so that no square is out of range; NaN in place of 0 / 0 warns nowhere.
    flat = flat / ops.where(largest > 0, largest, ops.cast(largest * 0.0 + math.nan, "float64"))
    return flat / ops.norm(flat)


def cosine_of_sum(total: Array, world_size: int, ops: ArrayOps) -> float:
    """Return the mean cosine over pairs of `world_size` unit vectors, from their sum."""
    if world_size == 1:
        return math.nan
    squared = float(ops.to_numpy(ops.sum(total * total)))
    return (squared - world_size) / (world_size * (world_size - 1))
