"""Linear and spectral compressors other than PowerSGD: Atomo, unbiased low rank, GradiVeQ, random projections."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def atomo(matrix: np.ndarray, rank: int, offset: float) -> np.ndarray:
    """Return a random sum of singular triplets with the matrix as its mean (spectral Atomo, Wang et al. 2018).

    Triplet i is taken with probability p_i = min(1, rank * sigma_i / sum sigma), and then weighs sigma_i / p_i. One
    uniform `offset` in [0, 1) decides: with c_i = p_1 + ... + p_i, triplet i is taken if one of offset, 1 + offset,
    2 + offset, ... lies in [c_{i-1}, c_i).

    Args:
        matrix: what is compressed.
        rank: an upper bound on how many triplets are taken on average.
        offset: the random number.
    """
    u, s, v = np.linalg.svd(np.asarray(matrix, np.float64), full_matrices=False)
    out = np.zeros(np.shape(matrix))
    total = np.sum(s)
    if total == 0:
        return out
    before = 0.0
    for i, sigma in enumerate(s):
        p = min(1.0, rank * sigma / total)
        after = before + p
        if np.ceil(before - offset) + offset < after:
            out += sigma / p * np.outer(u[:, i], v[i])
        before = after
    return out


def unbiased_low_rank(matrix: np.ndarray, gaussians: np.ndarray) -> np.ndarray:
    """Return (M U) U^T, whose mean is M (Vogels et al. 2019, "unbiased rank r").

    Args:
        matrix: M, n x m.
        gaussians: m x r standard normal numbers; U is these over sqrt(r).
    """
    u = np.asarray(gaussians, np.float64) / np.sqrt(gaussians.shape[1])
    return np.asarray((np.asarray(matrix, np.float64) @ u) @ u.T)


def gradiveq(
    mean_gradients: Sequence[np.ndarray], slice_length: int, dims: int, period: int, collect: int
) -> list[np.ndarray]:
    """Return the update of every step (GradiVeQ, Yu et al. 2018).

    The gradient, flat and filled up with zeros, is cut into slices. The first `collect` steps of every `period` are
    dense and add S^T S to a covariance that starts from zero, one slice a row of S; the last of them makes its leading
    eigenvectors the basis, on which every other step projects the slices.

    Args:
        mean_gradients: by step, the mean over the workers (projections are linear).
        slice_length: elements a slice.
        dims: eigenvectors in the basis.
        period: steps from one start of collecting to the next.
        collect: dense steps in each period, at least 1.
    """
    assert 1 <= collect <= period and 1 <= dims <= slice_length
    covariance = np.zeros((slice_length, slice_length))
    basis = np.zeros((slice_length, dims))
    updates = []
    for step, gradient in enumerate(mean_gradients):
        g = np.asarray(gradient, np.float64)
        slices = _rows(g, slice_length)
        phase = step % period
        if phase == 0:
            covariance[:] = 0
        if phase < collect:
            covariance += slices.T @ slices
            updates.append(g.copy())
        else:
            updates.append((slices @ basis @ basis.T).ravel()[: g.size].reshape(g.shape))
        if phase == collect - 1:
            basis = np.linalg.eigh(covariance)[1][:, -dims:]  # eigenvalues ascend
    return updates


def hadamard(n: int) -> np.ndarray:
    """Return Sylvester's n x n matrix of +1 and -1, for n a power of two: H_1 = 1, H_2n = [[H, H], [H, -H]]."""
    assert n > 0 and n & (n - 1) == 0, f"{n} is no power of two"
    h = np.ones((1, 1))
    while len(h) < n:
        h = np.block([[h, h], [h, -h]])
    return h


def random_projection(x: np.ndarray, signs: np.ndarray, rows: np.ndarray, block: int) -> np.ndarray:
    """Return T^T T x for every block of x, T being the chosen rows of H diag(signs) / sqrt(block).

    T has orthonormal rows, so this is the orthogonal projection on them, and all rows give x itself. The last block is
    filled up with zeros, and what the projection puts there is cut off.

    Args:
        x: what is projected, flat.
        signs: +1 or -1, for all blocks (`block` of them) or for each (blocks x `block`).
        rows: distinct row numbers of H, for all blocks (k of them) or for each (blocks x k).
        block: elements a block, a power of two.
    """
    parts = _rows(np.asarray(x, np.float64), block)
    every_sign = np.broadcast_to(signs, parts.shape)
    every_row = np.broadcast_to(rows, (len(parts), np.shape(rows)[-1]))
    h = hadamard(block) / np.sqrt(block)
    out = np.zeros(parts.shape)
    for i, part in enumerate(parts):
        t = h[every_row[i]] * every_sign[i]
        out[i] = t.T @ (t @ part)
    return out.ravel()[: np.size(x)].reshape(np.shape(x))


def _rows(x: np.ndarray, length: int) -> np.ndarray:
    """Return x flat, filled up with zeros to whole rows of this length."""
    flat = x.ravel()
    return np.concatenate([flat, np.zeros(-flat.size % length)]).reshape(-1, length)
