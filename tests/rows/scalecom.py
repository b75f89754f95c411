"""Rows of cyclic local top-k and ScaleCom."""

from __future__ import annotations

from typing import Any

from row import Row

from hvd_compress import CyclicTopK, ErrorFeedback, ScaleCom, Warmup


def _chosen(name: str, compressor: Any, chunk: int, **more: Any) -> Row:
    """On one worker the largest of every chunk, or of all: at least 1/ratio of the energy is sent."""
    return Row(name, compressor, bound=lambda n, m: 1.0 - 1.0 / chunk, sparse=True, **more)


ROWS = [
    _chosen("cyclic-top-k", CyclicTopK(4, min_size=8), 4),
    _chosen("cyclic-top-k-exact", CyclicTopK(3, "exact", min_size=8), 3, sharded=True),
    _chosen("cyclic-top-k-large-only", CyclicTopK(8, min_size=100), 8),
    _chosen("feedback-cyclic-top-k", ErrorFeedback(CyclicTopK(5, min_size=8)), 5, memory=(1.0, 1.0)),
    _chosen("warmup-cyclic-top-k", Warmup(2, CyclicTopK(7, min_size=8)), 7),
    _chosen("scalecom", ScaleCom(4, min_size=8), 4, memory=(1.0, 1.0)),
    _chosen("scalecom-low-pass", ScaleCom(6, beta=0.25, min_size=8), 6, memory=(0.25, 1.0)),
    _chosen("scalecom-forgetting", ScaleCom(6, 0.5, "forgetting", min_size=8), 6, memory=(1.0, 0.5)),
    _chosen("scalecom-literal", ScaleCom(6, 0.5, "literal", min_size=8), 6, memory=(0.5, 0.5)),
    _chosen("scalecom-exact", ScaleCom(5, selection="exact", min_size=16), 5, memory=(1.0, 1.0), sharded=True),
    _chosen("scalecom-start-after", ScaleCom(4, start_after=2, min_size=8), 4, memory=(1.0, 1.0)),
    _chosen("scalecom-chunks", ScaleCom(4, min_size=8, chunks=(("conv*", 9),)), 9, memory=(1.0, 1.0)),
]
