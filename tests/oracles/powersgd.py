"""PowerSGD (Vogels, Karimireddy, Jaggi 2019, Algorithms 1 and 2) and its alternating form (arXiv:2008.01425).

Matrices are as the papers write them: M is n x m, P is n x r, Q is m x r.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np


def orthogonalise(p: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis of the columns of p."""
    return np.linalg.qr(p)[0]


@dataclass
class PowerSGD:
    """The run of one matrix over W workers.

    Args:
        q: the first Q.
        feedback: keep the residual.
        warm_start: start from the Q of the step before.
        fresh: without warm start, the Q of a step; the first one where there is none.
        power_iterations: subspace iterations a step.
        global_residual: e = p - P Q^T with the averaged Q, in place of the worker's own p^T P.
    """

    q: np.ndarray
    feedback: bool = True
    warm_start: bool = True
    fresh: Callable[[int], np.ndarray] | None = None
    power_iterations: int = 1
    global_residual: bool = False
    residuals: list[np.ndarray] = field(default_factory=list)
    _step: int = 0

    def step(self, gradients: Sequence[np.ndarray]) -> np.ndarray:
        """Return the update that every worker applies."""
        if not self.residuals:
            self.residuals = [np.zeros_like(g) for g in gradients]
        corrected = [g + e for g, e in zip(gradients, self.residuals, strict=True)]
        q = self.q if self.warm_start or self.fresh is None else self.fresh(self._step)
        for _ in range(self.power_iterations):
            p = orthogonalise(sum(m @ q for m in corrected) / len(corrected))
            own = [m.T @ p for m in corrected]
            q = sum(own) / len(own)
        update = p @ q.T
        if self.feedback:
            kept = [q] * len(own) if self.global_residual else own
            self.residuals = [m - p @ part.T for m, part in zip(corrected, kept, strict=True)]
        if self.warm_start:
            self.q = q
        self._step += 1
        return update


@dataclass
class AlternatingPowerSGD:
    """The same with one factor a step: P at even steps, Q at odd ones."""

    q: np.ndarray
    feedback: bool = True
    p: np.ndarray | None = None
    residuals: list[np.ndarray] = field(default_factory=list)
    _step: int = 0

    def step(self, gradients: Sequence[np.ndarray]) -> np.ndarray:
        """Return the update that every worker applies."""
        if not self.residuals:
            self.residuals = [np.zeros_like(g) for g in gradients]
        corrected = [g + e for g, e in zip(gradients, self.residuals, strict=True)]
        if self._step % 2 == 0:
            basis = orthogonalise(self.q)
            sent = [m @ basis @ basis.T for m in corrected]
            self.p = sum(m @ basis for m in corrected) / len(corrected)
        else:
            assert self.p is not None
            basis = orthogonalise(self.p)
            sent = [basis @ basis.T @ m for m in corrected]
            self.q = sum(m.T @ basis for m in corrected) / len(corrected)
        if self.feedback:
            self.residuals = [m - s for m, s in zip(corrected, sent, strict=True)]
        self._step += 1
        return sum(sent) / len(sent)
