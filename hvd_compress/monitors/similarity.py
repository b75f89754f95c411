"""similarity: both monitors of every residual, by collectives, whatever carries them."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeAlias, final

from ..contract import Array, Mean, Results, Round, Sum
from ..ops import ArrayOps
from .index_distance import distance_of_top_k
from .memory_cosine import cosine_of_sum, unit_vector

SimilarityExchange: TypeAlias = "Generator[Round, Results, Similarity]"


@final
@dataclass(frozen=True)
class Similarity:
    """How alike the workers' residuals of one parameter are.

    Args:
        cosine: mean over pairs of workers, see `memory_cosine`; NaN for one worker, or where a residual is zero.
        index_distance: of each worker's own top-k from that of the mean, see `index_distance`; 0 at best.
    """

    cosine: float
    index_distance: float


def similarity(memory: Array, world_size: int, ratio: int, ops: ArrayOps) -> SimilarityExchange:
    """Yield two rounds that compare this rank's residual with those of the others; return the same on all ranks.

    Two allreduces of d float64 numbers: what a dense step costs, four times over. Ask now and then, not every step.

    Args:
        memory: this rank's residual; left untouched.
        world_size: number of workers.
        ratio: the d/ratio largest elements are compared.
        ops: array operations of the residual.
    """
    flat = ops.cast(ops.flatten(memory), "float64")
    directions, total = yield [Sum(unit_vector(memory, ops), donate=True), Sum(flat)]
    k = -(-ops.shape(flat)[0] // ratio)
    (distance,) = yield [Mean(distance_of_top_k(flat, total, k, ops), donate=True)]
    return Similarity(cosine_of_sum(directions, world_size, ops), float(ops.to_numpy(distance)[0]))
