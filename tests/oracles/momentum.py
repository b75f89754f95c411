"""Momentum before compression: DGC (Lin et al. 2018, arXiv:1712.01887) and Signum with majority vote (1810.05291)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .sketch import largest


class Dgc(NamedTuple):
    """The update of every step, and every worker's u and v after the last one."""

    updates: list[np.ndarray]
    u: list[np.ndarray]
    v: list[np.ndarray]


def clipped(g: np.ndarray, bound: float) -> np.ndarray:
    """Return g, scaled down to the l2 norm `bound` where it is longer."""
    norm = float(np.linalg.norm(g))
    return g * (bound / norm) if norm > bound else g


def dgc(
    gradients: Sequence[Sequence[np.ndarray]],
    k: int,
    momentum: float,
    nesterov: bool = False,
    clip: float | None = None,
) -> Dgc:
    """Run W workers with momentum correction and factor masking; every rank applies the mean of what they send.

    Args:
        gradients: by step, then by worker.
        k: coordinates that each worker sends, its own largest |v|.
        momentum: mu.
        nesterov: u <- mu (u + g); v <- v + u + g, in place of u <- mu u + g; v <- v + u.
        clip: bound on the l2 norm of the summed gradient: every worker clips its own to clip / sqrt(W), first of all.
    """
    world = len(gradients[0])
    us = [np.zeros(g.shape) for g in gradients[0]]
    vs = [np.zeros(g.shape) for g in gradients[0]]
    updates = []
    for own in gradients:
        update = np.zeros(own[0].shape)
        for rank, g in enumerate(own):
            if clip is not None:
                g = clipped(g, clip / np.sqrt(world))
            if nesterov:
                us[rank] = momentum * (us[rank] + g)
                vs[rank] = vs[rank] + us[rank] + g
            else:
                us[rank] = momentum * us[rank] + g
                vs[rank] = vs[rank] + us[rank]
            sent = largest(vs[rank], k)
            update[sent] += vs[rank][sent] / world
            us[rank][sent] = 0.0
            vs[rank][sent] = 0.0
        updates.append(update)
    return Dgc(updates, us, vs)


class Signum(NamedTuple):
    """The vote of every step, and every worker's momentum after the last one."""

    votes: list[np.ndarray]
    momenta: list[np.ndarray]


def sign(x: np.ndarray) -> np.ndarray:
    """Return +1 or -1; +1 for 0."""
    return np.where(x >= 0, 1.0, -1.0)


def signum(gradients: Sequence[Sequence[np.ndarray]], beta: float) -> Signum:
    """Run W workers: m <- beta m + (1-beta) g, and the sign that most of them have; +1 on a tie.

    Args:
        gradients: by step, then by worker.
        beta: momentum; 0 is signSGD with majority vote.
    """
    momenta = [np.zeros(g.shape) for g in gradients[0]]
    votes = []
    for own in gradients:
        momenta = [beta * m + (1 - beta) * g for m, g in zip(momenta, own, strict=True)]
        votes.append(sign(np.sum([sign(m) for m in momenta], axis=0)))
    return Signum(votes, momenta)
