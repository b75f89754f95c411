"""index_distance: whether a worker's largest elements are those of the mean."""

from __future__ import annotations

from collections.abc import Sequence

from ..contract import Array
from ..ops import ArrayOps, ops_of


def index_distance(arrays: Sequence[Array], k: int) -> float:
    """Return the mean over workers of the normalised Hamming distance between top-k of x_i and top-k of mean x.

    Of two sets of k positions it is 1 - |A and B| / k: 0 where one worker's choice is the best choice for all, about
    1 - k/d where it is as good as a random one. Worker i's top-k is what cyclic local top-k selects when i leads.

    Args:
        arrays: every worker's residual, or gradient with residual, of one shape: NumPy arrays or torch tensors.
        k: positions in a set, 1 <= k <= d.
    """
    ops = ops_of(arrays[0])
    flat = [ops.cast(ops.flatten(x), "float64") for x in arrays]
    total = ops.copy(flat[0])
    for x in flat[1:]:
        total = ops.add_(total, x)
    distances = [float(ops.to_numpy(distance_of_top_k(x, total, k, ops))[0]) for x in flat]
    return sum(distances) / len(distances)


def distance_of_top_k(x: Array, y: Array, k: int, ops: ArrayOps) -> Array:
    """Return 1 - |A and B| / k of the positions of the k largest |x| and |y|, as a float64 array of one element."""
    marked = ops.put_(ops.zeros(ops.shape(x), "float64"), ops.top_k(ops.abs(y), k), 1.0)
    shared = ops.sum(ops.take(marked, ops.top_k(ops.abs(x), k)))
    return 1.0 - ops.reshape(shared, (1,)) / k
