"""contraction: the share of a gradient that a compressor leaves out."""

from __future__ import annotations

from ..contract import Array
from ..ops import ops_of


def contraction(given: Array, sent: Array) -> float:
    """Return ||p - C(p)||^2 / ||p||^2: 0 where everything is sent, 1 where nothing is; more where it does harm.

    Args:
        given: p, what the compressor was given: a NumPy array or torch tensor.
        sent: C(p), of the same shape.

    Returns:
        NaN where p is zero.
    """
    ops = ops_of(given)
    p = ops.to_numpy(ops.cast(ops.flatten(given), "float64"))
    lost = p - ops.to_numpy(ops.cast(ops.flatten(sent), "float64"))
    whole = float(p @ p)
    return float(lost @ lost) / whole if whole else float("nan")
