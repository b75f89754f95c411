"""ScaleCom (Chen et al. 2020, arXiv:2104.11125): cyclic local top-k (CLT) and the low-pass memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from .sketch import largest

# From the step and every worker's p: the coordinates that all of them send.
Select = Callable[[int, list[np.ndarray]], np.ndarray]


class Run(NamedTuple):
    """The update of every step, every worker's memory after the last one, and what was sent by step and worker."""

    updates: list[np.ndarray]
    memories: list[np.ndarray]
    sent: list[list[np.ndarray]]


def scalecom(gradients: Sequence[Sequence[np.ndarray]], select: Select, beta: float, variant: str = "low-pass") -> Run:
    """Run W workers; every rank applies the mean of what they send.

    Args:
        gradients: by step, then by worker.
        select: the coordinates that are sent.
        beta: weight of the new residue; what it means depends on the variant.
        variant: the memory. "low-pass" is the paper's: p = h + g; h <- (1-beta) h + beta (p - s). The others, for
            comparison, are p = g + a h; h <- b h + (g - s) with (a, b) = (1, 1-beta) for "forgetting" and
            (beta, 1-beta) for "literal", the exponential average of the incoming residue.
    """
    memories = [np.zeros(g.shape) for g in gradients[0]]
    updates, record = [], []
    for step, own in enumerate(gradients):
        weight = beta if variant == "literal" else 1.0
        corrected = [g + weight * h for g, h in zip(own, memories, strict=True)]
        chosen = select(step, corrected)
        sent = [np.zeros_like(p) for p in corrected]
        for s, p in zip(sent, corrected, strict=True):
            s[chosen] = p[chosen]
        if variant == "low-pass":
            memories = [(1 - beta) * h + beta * (p - s) for h, p, s in zip(memories, corrected, sent, strict=True)]
        elif variant in ("forgetting", "literal"):
            memories = [(1 - beta) * h + (g - s) for h, g, s in zip(memories, own, sent, strict=True)]
        else:
            raise AssertionError(f"{variant} is no memory")
        updates.append(np.mean(sent, axis=0))
        record.append(sent)
    return Run(updates, memories, record)


def clt_indices(ps: Sequence[np.ndarray], step: int, k: int) -> np.ndarray:
    """Return the k largest |p| of the step's leader, worker `step` mod W: cyclic local top-k of one vector."""
    return largest(ps[step % len(ps)], k)


def clt_indices_exact(ps: Sequence[np.ndarray], step: int, k: int, world: int) -> np.ndarray:
    """Return CLT's ring form: shards of ceil(d/W) elements, shard s led by worker (s + step) mod W.

    Each of the n shards with any elements sends ceil(k/n) of them, or all: at least k in all (where d is), and less
    than k + n.
    """
    assert len(ps) == world
    size = len(ps[0])
    length = -(-size // world)
    shards = [(s, s * length, min((s + 1) * length, size)) for s in range(world) if s * length < size]
    chosen = [
        start + clt_indices([p[start:stop] for p in ps], s + step, -(-k // len(shards))) for s, start, stop in shards
    ]
    return np.concatenate([np.zeros(0, np.intp), *chosen])


def clt_indices_chunked(p_of_workers: Sequence[np.ndarray], step: int, chunk: int, world: int) -> np.ndarray:
    """Return the ring form of chunked quasi-top-k: the largest |p| of every chunk, in the eyes of its shard's leader.

    Chunks have `chunk` elements (the last one may have fewer). Shard s is the s-th run of ceil(n/W) of the n chunks,
    and is led by worker (s + step) mod W. Of equal ones the first is taken.
    """
    assert len(p_of_workers) == world
    size = len(p_of_workers[0])
    starts = range(0, size, chunk)
    per_shard = -(-len(starts) // world)
    chosen = []
    for number, start in enumerate(starts):
        leader = (number // per_shard + step) % world
        chosen.append(start + int(np.argmax(np.abs(p_of_workers[leader][start : start + chunk]))))
    return np.array(chosen, np.intp)


def memory_cosine(memories: Sequence[np.ndarray]) -> float:
    """Return the mean cosine over pairs of workers; NaN where there is no pair, or a memory is zero."""
    norms = [float(np.linalg.norm(h)) for h in memories]
    pairs = list(combinations(range(len(memories)), 2))
    if not pairs or min(norms) == 0.0:
        return float("nan")
    return float(np.mean([memories[i] @ memories[j] / (norms[i] * norms[j]) for i, j in pairs]))


def hamming(sets_a: Collection[int], sets_b: Collection[int], k: int) -> float:
    """Return the Hamming distance of two sets of k coordinates over its largest value: (2k - 2 |A and B|) / 2k."""
    shared = len({int(i) for i in sets_a} & {int(i) for i in sets_b})
    return (2 * k - 2 * shared) / (2 * k)
