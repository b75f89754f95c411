"""Best rank-r approximation and projections, by singular value decomposition."""

from __future__ import annotations

import numpy as np


def best_rank(matrix: np.ndarray, rank: int) -> np.ndarray:
    """Return the nearest matrix of rank at most `rank` (Eckart and Young 1936)."""
    u, s, v = np.linalg.svd(np.asarray(matrix, np.float64), full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ v[:rank]


def best_rank_error(matrix: np.ndarray, rank: int) -> float:
    """Return the squared distance to the nearest matrix of rank at most `rank`."""
    s = np.linalg.svd(np.asarray(matrix, np.float64), compute_uv=False)
    return float(np.sum(s[rank:] ** 2))


def project_columns(matrix: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Return the matrix projected on the column space of `basis`."""
    u, s, _ = np.linalg.svd(basis, full_matrices=False)
    u = u[:, s > s.max(initial=0.0) * 1e-12]
    return u @ (u.T @ matrix)
