"""Count sketch (Charikar, Chen, Farach-Colton 2002) and Sketched-SGD (Ivkin et al. 2019, arXiv:1903.04488).

Means over workers stand in the place of the paper's sums. Hash tables are given: `buckets` (r x d, integers below the
number of columns) and `signs` (r x d, +1 or -1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


def largest(x: np.ndarray, k: int) -> np.ndarray:
    """Return the places of the k largest |x|, ascending; of equal ones the first are taken."""
    return np.sort(np.argsort(-np.abs(x), kind="stable")[:k])


def sketch(v: np.ndarray, buckets: np.ndarray, signs: np.ndarray, columns: int) -> np.ndarray:
    """Return the table: T[j, b] = sum of signs[j, i] v[i] over the i with buckets[j, i] = b."""
    table = np.zeros((len(buckets), columns))
    for row, (bucket, sign) in enumerate(zip(buckets, signs, strict=True)):
        np.add.at(table[row], bucket, sign * v)
    return table


def estimate(table: np.ndarray, buckets: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """Return the median over rows j of signs[j, i] T[j, buckets[j, i]], for every i."""
    rows = [sign * row[bucket] for row, bucket, sign in zip(table, buckets, signs, strict=True)]
    medians: np.ndarray = np.median(np.stack(rows), axis=0)
    return medians


class Run(NamedTuple):
    """The update of every step, and every worker's u and v after the last one."""

    updates: list[np.ndarray]
    u: list[np.ndarray]
    v: list[np.ndarray]


def sketched_sgd(
    gradients: Sequence[Sequence[np.ndarray]],
    buckets: np.ndarray,
    signs: np.ndarray,
    columns: int,
    k: int,
    candidates: int,
    momentum: float,
    masking: bool = True,
    second_round: bool = True,
) -> Run:
    """Run W workers.

    Args:
        gradients: by step, then by worker.
        buckets: r x d.
        signs: r x d.
        columns: width of the table.
        k: coordinates that are applied in a step.
        candidates: coordinates that are asked for exactly: the paper's P k, or all d where there are fewer.
        momentum: mu.
        masking: zero u at the applied coordinates.
        second_round: apply exact values; otherwise the estimates, which every worker takes off its v.
    """
    us = [np.zeros(g.shape) for g in gradients[0]]
    vs = [np.zeros(g.shape) for g in gradients[0]]
    updates = []
    for own in gradients:
        us = [momentum * u + g for u, g in zip(us, own, strict=True)]
        vs = [v + u for v, u in zip(vs, us, strict=True)]
        table = np.mean([sketch(v, buckets, signs, columns) for v in vs], axis=0)
        estimates = estimate(table, buckets, signs)
        update = np.zeros_like(estimates)
        if second_round:
            asked = largest(estimates, candidates)
            exact = np.mean([v[asked] for v in vs], axis=0)
            chosen = largest(exact, k)
            applied = asked[chosen]
            update[applied] = exact[chosen]
            for v in vs:
                v[applied] = 0.0
        else:
            applied = largest(estimates, k)
            update[applied] = estimates[applied]
            for v in vs:
                v[applied] -= update[applied]
        if masking:
            for u in us:
                u[applied] = 0.0
        updates.append(update)
    return Run(updates, us, vs)
