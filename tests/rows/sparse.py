"""Rows of top-k and random-k, of the methods around them, and of adaptive bins."""

from __future__ import annotations

from typing import Any

from row import Row, exact

from hvd_compress import (
    DGC,
    AdaComp,
    AdaptiveBins,
    AllGather,
    ErrorFeedback,
    GlobalTopK,
    GTopK,
    LocalClip,
    MemSGD,
    MomentumCorrection,
    RandomBlock,
    RandomK,
    TopK,
    TwoWay,
)

EF = (1.0, 1.0)
# Above the norm of any gradient that the laws are tried on: clipping is no average, and has tests of its own.
FAR = 1e37


def _top(name: str, compressor: Any, ratio: float, **more: Any) -> Row:
    """On one worker it keeps at least this share of the energy."""
    return Row(name, compressor, **{"bound": lambda n, m: 1.0 - ratio, "sparse": True, "flat": False, **more})


def _random(name: str, compressor: Any, ratio: float, **more: Any) -> Row:
    return Row(name, compressor, bound=lambda n, m: 1.0 - ratio, sparse=True, random=True, linear=True, **more)


ROWS = [
    _top("top-k", TopK(0.1, min_size=2), 0.1),
    _top("top-k-large-only", TopK(min_size=100), 0.01),
    _top("top-k-chunked", AllGather(TopK(0.1, "chunked", min_size=2)), 0.1),
    _top("top-k-two-way", TwoWay(TopK(0.1, min_size=2)), 0.0, flat=True),
    _top("feedback-top-k-chunked", ErrorFeedback(TopK(0.15, "chunked", min_size=2)), 1 / 7, memory=EF),
    exact("top-k-all", TopK(1.0, min_size=2), flat=False),
    exact("top-k-chunked-all", TopK(1.0, "chunked", min_size=2), flat=False),
    _random("random-k", RandomK(0.2, min_size=2), 0.2),
    _random("random-k-large-only", RandomK(seed=3, min_size=100), 0.01),
    _random("feedback-random-k", ErrorFeedback(RandomK(0.2, min_size=2)), 0.2, memory=EF),
    exact("random-k-all", RandomK(1.0, min_size=2)),
    _random("random-block", RandomBlock(0.2, min_size=2), 0.2),
    _random("random-block-large-only", RandomBlock(seed=3, min_size=100), 0.01),
    exact("random-block-all", RandomBlock(1.0, min_size=2)),
    _top("memsgd", MemSGD(0.1, min_size=2), 0.1, memory=EF),
    _top("memsgd-large-only", MemSGD(min_size=100), 0.01, memory=EF),
    _top("memsgd-chunked", MemSGD(0.1, "chunked", min_size=2), 0.1, memory=EF),
    _random("memsgd-random", MemSGD(0.2, "random", min_size=2), 0.2, memory=EF),
    _random("memsgd-block", MemSGD(0.2, "block", min_size=2, seed=4), 0.2, memory=EF),
    _top("global-top-k", GlobalTopK(0.1, min_size=2), 0.1),
    _top("global-top-k-large-only", GlobalTopK(min_size=100), 0.001),
    exact("global-top-k-all", GlobalTopK(1.0, min_size=2), flat=False),
    _top("gtopk", GTopK(0.1, min_size=2), 0.1, memory=EF),
    _top("gtopk-large-only", GTopK(min_size=100), 0.001, memory=EF),
    _top("local-clip-far", LocalClip(TopK(0.1, min_size=2), FAR), 0.1),
    _top("local-clip-farther", LocalClip(AllGather(TopK(0.2, min_size=2)), 2 * FAR), 0.2),
    _top("momentum-correction-top-k", MomentumCorrection(TopK(0.2, min_size=2), 0.5), 0.2, memory=EF, momentum=True),
    _top("dgc", DGC(0.1, min_size=2), 0.1, memory=EF, momentum=True),
    _top("dgc-large-only", DGC(momentum=0.5, min_size=100), 0.001, memory=EF, momentum=True),
    _top("dgc-nesterov", DGC(0.1, nesterov=True, min_size=2), 0.1, memory=EF, momentum=True),
    _top("dgc-clip", DGC(0.1, clip=FAR, min_size=2), 0.1, memory=EF, momentum=True),
    _top("top-k-sampled", TopK(0.1, "sampled", min_size=2), 0.1),
    _top("dgc-sampled", DGC(0.1, selection="sampled", min_size=2), 0.1, memory=EF, momentum=True),
    _top("dgc-warmup", DGC(0.1, warmup_steps=3, selection="chunked", min_size=2), 0.1, memory=EF, momentum=True),
    _top("adaptive-bins", AdaptiveBins(20, 30, 2, min_size=2), 0.0, memory=EF),
    _top("adaptive-bins-large-only", AdaptiveBins(min_size=100), 0.0, memory=EF),
    _top("adacomp", AdaComp(min_size=2), 0.0, memory=EF),
    _top("adacomp-small-bins", AdaComp(16, 9, 1, min_size=60), 0.0, memory=EF),
]
