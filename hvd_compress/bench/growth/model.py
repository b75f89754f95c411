"""Latency-bandwidth model: what an exchange would take with more workers than were measured; a model, and called one.

A collective of n bytes among W workers takes, around a ring, with latency a and b seconds a byte:

    allreduce  2 (W-1) a + 2 (W-1)/W n b        allgather, alltoall  (W-1) a + (bytes sent) b

and an exchange takes what it takes locally, l, besides. a, b and l >= 0 are fitted to measured exchanges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import final

import numpy as np

from ...contract import Max, Mean, Sum, Traffic, sent_bytes


@final
@dataclass(frozen=True)
class Fit:
    """A model of one way of exchanging.

    Args:
        local: seconds that do not depend on the number of workers.
        latency: seconds of one step around the ring.
        byte: seconds of one byte.
        error: largest relative difference to the measured points.
    """

    local: float
    latency: float
    byte: float
    error: float

    def seconds(self, steps: float, nbytes: float) -> float:
        """Return the time of an exchange of so many steps around the ring and bytes sent."""
        return self.local + steps * self.latency + nbytes * self.byte


def steps_and_bytes(traffic: Traffic, world_size: int) -> tuple[int, float]:
    """Return the steps around a ring, and the bytes that a worker sends, of an exchange that is fused in rounds.

    Args:
        traffic: of one unit.
        world_size: number of workers.
    """
    steps, nbytes = 0, 0.0
    for payloads in traffic:
        kinds = {payload.kind for payload in payloads}
        steps += sum((2 if kind in (Mean, Sum, Max) else 1) * (world_size - 1) for kind in kinds)
        nbytes += sum(sent_bytes(payload.kind, payload.nbytes, world_size) for payload in payloads)
    return steps, nbytes


def fit(points: Sequence[tuple[float, float, float]]) -> Fit:
    """Return the model that fits (steps, bytes, seconds) best, none of its numbers below 0.

    Args:
        points: at least three.
    """
    measured = np.array(points, dtype=np.float64)
    design = np.column_stack([np.ones(len(measured)), measured[:, 0], measured[:, 1]])
    # Relative errors: a short exchange counts as much as a long one.
    weights = 1.0 / measured[:, 2]
    best, least = np.zeros(3), np.inf
    for count in (1, 2, 3):
        for chosen in combinations(range(3), count):
            columns = list(chosen)
            found = np.linalg.lstsq(design[:, columns] * weights[:, None], np.ones(len(measured)), rcond=None)[0]
            if (found < 0).any():
                continue
            candidate = np.zeros(3)
            candidate[columns] = found
            loss = float(np.square((design @ candidate) * weights - 1.0).sum())
            if loss < least:
                best, least = candidate, loss
    error = float(np.abs((design @ best) * weights - 1.0).max())
    return Fit(float(best[0]), float(best[1]), float(best[2]), error)
