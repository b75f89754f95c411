"""Latency-bandwidth model: what an exchange would take with more workers than were measured; a model, and called one.

An exchange is the collectives that its description names, one after the other: what travels together is one. Among W
workers each takes a for every message that waits for the one before it, and b for every byte that a worker sends:

    allreduce  2 (W-1) messages, of 2 (W-1)/W n bytes     allgather  W-1, (W-1) n     alltoall  W-1, (W-1)/W n
    broadcast  ceil(log2 W), (W-1)/W n on the average     swap  1, n

    seconds = l + a messages + b bytes

with n bytes handed in by each, and l for what a worker does by itself. l, a, b >= 0 are fitted to measured exchanges.
Horovod's coordination is in none of them: where it grows with W, that is in a.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import final

import numpy as np

from ...contract import REDUCTIONS, Broadcast, Collective, Payload, Swap, sent_bytes


@final
@dataclass(frozen=True)
class Fit:
    """A model of one way of exchanging.

    Args:
        local: seconds that do not depend on the number of workers.
        latency: seconds of a message.
        byte: seconds of a byte.
        error: largest relative difference to the measured points.
    """

    local: float
    latency: float
    byte: float
    error: float

    def seconds(self, messages: float, nbytes: float) -> float:
        """Return the time of so many messages that wait for one another, and of bytes that a worker sends."""
        return self.local + messages * self.latency + nbytes * self.byte


def messages_and_bytes(collectives: Sequence[Sequence[Payload]], world_size: int) -> tuple[int, int]:
    """Return the messages that wait for one another, and the bytes that a worker sends.

    Args:
        collectives: each as the payloads, all of one kind, that travel in it.
        world_size: number of workers.
    """
    messages = sum(_messages(payloads[0].kind, world_size) for payloads in collectives)
    nbytes = sum(sent_bytes(p.kind, p.nbytes, world_size) for payloads in collectives for p in payloads)
    return messages, nbytes


def _messages(kind: type[Collective], world_size: int) -> int:
    if kind is Swap:
        return min(1, world_size - 1)
    if kind is Broadcast:
        return (world_size - 1).bit_length()
    return (2 if kind in REDUCTIONS else 1) * (world_size - 1)


def fit(points: Sequence[tuple[float, float, float]]) -> Fit:
    """Return the model that fits (messages, bytes, seconds) best, none of its numbers below 0.

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
