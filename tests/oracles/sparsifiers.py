"""Sparsifiers: which elements are sent, with which values, and what is left of the others.

Vectors are flat. Of equal magnitudes the lower index goes first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def top_k(x: np.ndarray, k: int) -> set[int]:
    """Return the indices of the k largest |x|; all of them where x has fewer."""
    return set(_largest(dict(enumerate(x)), k))


def random_k(x: np.ndarray, indices: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return x at these indices and 0 elsewhere, not scaled up."""
    out = np.zeros(len(x))
    for i in indices:
        out[i] = x[i]
    return out


def random_block(x: np.ndarray, start: int, k: int) -> np.ndarray:
    """Return x on the k indices from `start` on, going on from 0 past the end, and 0 elsewhere; not scaled up."""
    return random_k(x, [(start + i) % len(x) for i in range(min(k, len(x)))])


def adacomp(residual: np.ndarray, gradient: np.ndarray, bin_size: int, slots: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what one worker sends, and its new residual (AdaComp, Chen et al. 2018, Algorithm 2).

    Args:
        residual: R, what earlier steps left.
        gradient: dW; G = R + dW is what can be sent, H = G + dW decides what is.
        bin_size: elements a bin; the last one may have fewer.
        slots: of the elements of a bin with |H| >= max|G|, at most this many are sent: those with the largest |H|.
    """
    g = np.asarray(residual, np.float64) + np.asarray(gradient, np.float64)
    h = g + np.asarray(gradient, np.float64)
    maxima, chosen = [], []
    for start in range(0, g.size, bin_size):
        inside = range(start, min(start + bin_size, g.size))
        largest = max(abs(g[i]) for i in inside)
        if largest == 0:
            continue
        maxima.append(largest)
        chosen += _largest({i: h[i] for i in inside if abs(h[i]) >= largest}, slots)
    sent = np.zeros(g.size)
    if maxima:
        sent[chosen] = np.sign(g[chosen]) * np.mean(maxima)
    return sent, g - sent


def gtopk(xs: Sequence[np.ndarray], k: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the mean update of gTop-k (Shi et al. 2019), and every rank's own share of it.

    Of W ranks, m is the largest power of two <= W. Each rank starts from its own top k. Ranks r >= m are merged into
    r - m; then in round j = 0, 1, ... rank r merges with r XOR 2^j. A merge adds up and keeps the k largest. A rank's
    value at index i counts as contributed where i is in its own top k and was kept by every merge that the rank had a
    part in; the contributions add up to W times the mean.

    Args:
        xs: by rank.
        k: how many elements every message holds.
    """
    size = len(xs[0])
    kept = [top_k(x, k) for x in xs]
    total = _doubling([{i: float(x[i]) for i in own} for x, own in zip(xs, kept, strict=True)], k, kept)
    contributions = [random_k(x, sorted(own)) for x, own in zip(xs, kept, strict=True)]
    added = _doubling([dict(enumerate(c)) for c in contributions], size, [set() for _ in xs])
    assert all(added[i] == total.get(i, 0.0) for i in range(size)), "the contributions are not what was applied"
    mean = np.zeros(size)
    for i, value in total.items():
        mean[i] = value / len(xs)
    return mean, contributions


def _doubling(messages: Sequence[Mapping[int, float]], k: int, kept: Sequence[set[int]]) -> dict[int, float]:
    """Return the message that all ranks end with; take out of `kept[r]` what a merge of rank r dropped."""
    world = len(messages)
    power = 1 << (world.bit_length() - 1)
    held = [dict(message) for message in messages]
    ranks = [{rank} for rank in range(world)]  # whose values each message holds

    def merge(a: int, b: int) -> tuple[dict[int, float], set[int]]:
        both = {i: held[a].get(i, 0.0) + held[b].get(i, 0.0) for i in held[a].keys() | held[b].keys()}
        largest = _largest(both, k)
        for rank in ranks[a] | ranks[b]:
            kept[rank].intersection_update(largest)
        return {i: both[i] for i in largest}, ranks[a] | ranks[b]

    for rank in range(power, world):
        held[rank - power], ranks[rank - power] = merge(rank - power, rank)
    bit = 1
    while bit < power:
        merged = [merge(rank, rank ^ bit) for rank in range(power)]
        held[:power], ranks[:power] = [m[0] for m in merged], [m[1] for m in merged]
        bit *= 2
    assert all(held[rank] == held[0] for rank in range(power)), "the ranks disagree"
    return held[0]


def _largest(values: Mapping[int, float], k: int) -> list[int]:
    """Return the indices of the k largest magnitudes, largest first."""
    return sorted(values, key=lambda i: (-abs(values[i]), i))[:k]
