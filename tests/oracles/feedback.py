"""The residual family: p = g + a h; s = C(p); h <- b h + (g - s), h starting from zero."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

# From every worker's corrected gradient: what every rank applies, and what each worker contributed to it.
Compress = Callable[[int, list[np.ndarray]], tuple[np.ndarray, list[np.ndarray]]]


def with_feedback(
    compress: Compress, gradients: Sequence[Sequence[np.ndarray]], a: float, b: float
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the update of every step, and every worker's memory after the last one.

    Args:
        compress: the compressor, called with the step and every worker's p.
        gradients: by step, then by worker.
        a: weight of the memory in what is compressed.
        b: weight of the memory that is kept.
    """
    memories = [np.zeros(g.shape) for g in gradients[0]]
    updates = []
    for step, own in enumerate(gradients):
        corrected = [g + a * h for g, h in zip(own, memories, strict=True)]
        update, sent = compress(step, corrected)
        memories = [b * h + (g - s) for h, g, s in zip(memories, own, sent, strict=True)]
        updates.append(update)
    return updates, memories
