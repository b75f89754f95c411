"""Rows of quantisers: QSGD, TernGrad, natural rounding, shared scales and random projections."""

from __future__ import annotations

import math

from row import Bound, Row

from hvd_compress import (
    ECQSGD,
    QSGD,
    AllGather,
    ErrorFeedback,
    Identity,
    Natural,
    QuantizedCompressiveSampling,
    RandomProjection,
    SharedScale,
    TernGrad,
    TwoWay,
)


def _noise(levels: int, bucket: int, times: int = 1) -> Bound:
    """Return QSGD's variance over ||x||^2 where a gradient is rounded so many times, one after the other."""

    def bound(n: int, m: int) -> float:
        own = min(n * m, bucket) if bucket else n * m
        return (1.0 + min(own / levels**2, math.sqrt(own) / levels)) ** times - 1.0

    return bound


def _ternary(times: int = 1) -> Bound:
    return lambda n, m: ((1.0 + math.sqrt(n * m)) / 2.0) ** times - 1.0


def _projected(share: float, levels: int = 0, times: int = 1) -> Bound:
    """Return what a projection leaves out on average, and the noise of rounding the rest to the largest of all."""
    return lambda n, m: 1.0 - share + (_noise(levels, 0, times)(n, 2 * m) if levels else 0.0)


ROWS = [
    Row("qsgd", AllGather(QSGD()), bound=_noise(7, 512), random=True, unbiased=True, flat=False),
    Row("qsgd-3-bits-max", QSGD(levels=3, bucket=50, norm="max"), bound=_noise(3, 50, 2), random=True, unbiased=True),
    Row("qsgd-two-way", TwoWay(QSGD(levels=127, bucket=64)), bound=_noise(127, 64, 2), random=True, unbiased=True),
    Row("terngrad", AllGather(TernGrad()), bound=lambda n, m: 1.0 + _ternary()(n, m), random=True, flat=False),
    Row("terngrad-no-clip", TernGrad(clip=0.0), bound=_ternary(2), random=True, unbiased=True),
    Row("natural", Natural(), bound=lambda n, m: 1.125**2 - 1.0, random=True, unbiased=True),
    Row(
        "feedback-natural",
        ErrorFeedback(AllGather(Natural())),
        memory=(1.0, 1.0),
        bound=lambda n, m: 0.125,
        random=True,
        flat=False,
    ),
    Row("shared-scale", SharedScale(), bound=_noise(7, 512), random=True, unbiased=True, flat=False),
    Row(
        "shared-scale-ternary",
        SharedScale(levels=1, bucket=0, clip=2.5),
        bound=lambda n, m: 1.0 + _ternary()(n, m),
        random=True,
        flat=False,
    ),
    Row("projection", RandomProjection(Identity()), linear=True, bound=_projected(0.5), random=True),
    Row(
        "projection-quantised",
        RandomProjection(QSGD(levels=15, norm="max"), share=0.25, block=16, seed=3),
        bound=_projected(0.25, 15, 2),
        random=True,
    ),
    Row("projection-all", RandomProjection(Identity(), share=1.0), linear=True, exact=True, bound=lambda n, m: 0.0),
    Row(
        "feedback-qsgd",
        ErrorFeedback(AllGather(QSGD(levels=15, norm="max"))),
        memory=(1.0, 1.0),
        bound=_noise(15, 512),
        random=True,
        flat=False,
    ),
    Row(
        "feedback-shared-scale",
        ErrorFeedback(SharedScale()),
        memory=(1.0, 1.0),
        bound=_noise(7, 512),
        random=True,
        flat=False,
    ),
    Row("ecqsgd", ECQSGD(), memory=(0.2, 0.9), bound=_noise(7, 512), random=True, flat=False),
    Row(
        "ecqsgd-2-bits-max",
        ECQSGD(levels=3, bucket=100, alpha=0.5, beta=1.0, norm="max"),
        memory=(0.5, 1.0),
        bound=_noise(3, 100),
        random=True,
        flat=False,
    ),
    Row(
        "compressive-sampling",
        QuantizedCompressiveSampling(),
        memory=(1.0, 1.0),
        bound=_projected(0.5, 7),
        random=True,
        flat=False,
    ),
    Row(
        "compressive-sampling-less",
        QuantizedCompressiveSampling(share=0.25, levels=15, block=64, bucket=0, alpha=0.5, beta=0.9, seed=2),
        memory=(0.5, 0.9),
        bound=_projected(0.25, 15),
        random=True,
        flat=False,
    ),
]
