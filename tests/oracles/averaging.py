"""Plain averaging: what training without compression applies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def average(gradients: Sequence[np.ndarray]) -> np.ndarray:
    """Return 1/W sum_i g_i."""
    return np.mean(np.stack([np.asarray(g, np.float64) for g in gradients]), axis=0)


def average_models(gradients: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the average of every named gradient."""
    return {name: average([own[name] for own in gradients]) for name in gradients[0]}
