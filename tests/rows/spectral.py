"""Rows of singular triplets, random projections and learnt bases."""

from __future__ import annotations

from row import Bound, Row, factors

from hvd_compress import (
    AllGather,
    Atomo,
    ErrorFeedback,
    GradiVeQ,
    RandomLowRank,
    SliceProjection,
    Spectral,
    UnbiasedLowRank,
)


def _gaussian(rank: int) -> Bound:
    """E||x - U U^T x||^2 = (m + 1)/r ||x||^2 for x of m elements."""
    return lambda n, m: (m + 1) / min(rank, n, m)


def _spectral(rank: int) -> Bound:
    """sum sigma^2 (1/p - 1) <= (sum sigma)^2 / r <= k/r sum sigma^2, as the triplets are orthogonal."""
    return lambda n, m: min(n, m) / rank


def _random(name: str, compressor: object, rank: int) -> Row:
    return factors(name, compressor, random=True, unbiased=True, bound=_gaussian(rank))


def _triplets(name: str, compressor: object, rank: int) -> Row:
    return Row(
        name,
        compressor,
        factors=True,
        random=True,
        unbiased=True,
        flat=False,
        bound=_spectral(rank),
    )


ROWS = [
    _triplets("spectral", Spectral(), 3),
    _triplets("spectral-gathered-2", AllGather(Spectral(rank=2)), 2),
    _triplets("atomo", Atomo(), 3),
    _triplets("atomo-1", Atomo(rank=1), 1),
    _random("random-low-rank", RandomLowRank(), 4),
    _random("random-low-rank-1-all-seed", RandomLowRank(rank=1, seed=3, min_saving=0.0), 1),
    _random("unbiased-low-rank", UnbiasedLowRank(), 4),
    _random("unbiased-low-rank-2-all-seed", UnbiasedLowRank(rank=2, seed=5, min_saving=0.0), 2),
    factors("slices", SliceProjection()),
    factors("slices-8-to-3", SliceProjection(8, 3, period=3, collect=1, min_saving=0.0)),
    factors("feedback-slices", ErrorFeedback(SliceProjection(4, 2, period=4, collect=2)), memory=(1.0, 1.0)),
    factors("gradiveq", GradiVeQ()),
    factors("gradiveq-8-to-4", GradiVeQ(8, 4, period=3, collect=1)),
    factors("gradiveq-feedback", GradiVeQ(6, 2, period=4, collect=2, error_feedback=True), memory=(1.0, 1.0)),
    factors("gradiveq-full", GradiVeQ(8, 8, period=2, collect=1, min_saving=0.0), exact=True),
]
