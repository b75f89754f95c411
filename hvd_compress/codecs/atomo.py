"""Spectral: a random few of the gradient's singular triplets, unbiased (spectral Atomo)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ..contract import Array, Codec, Key, Spec, check_at_least, wide_dtype
from ..ops import ArrayOps


@final
@dataclass(frozen=True, repr=False)
class Spectral(Codec):
    """Keep at most r singular triplets of the matrix, picked at random so that the mean over draws is the matrix.

    M = sum_i sigma_i u_i v_i^T; p_i = min(1, r sigma_i / sum sigma); C(M) = sum over picked i of sigma_i/p_i u_i v_i^T.

    Triplet i is picked with probability p_i by one uniform offset: with c_i = p_1 + ... + p_i, those i are picked whose
    [c_{i-1}, c_i) holds one of offset, offset + 1, ... Payload of an n x m matrix: r (n + m) numbers, of at least
    float32; what is not picked leaves zeros. Every rank takes an SVD of its own gradient at every step. Travels by
    `AllGather`.

    Args:
        rank: r >= 1; a payload has min(n, m, r) triplets.

    Raises:
        ConfigurationError: rank is not a whole number >= 1.

    Source: Wang, Sievert, Liu, Charles, Papailiopoulos, Wright 2018 (arXiv:1806.04090).
    """

    rank: int = 3

    def __post_init__(self) -> None:
        check_at_least(self, "rank", self.rank, 1)

    def arranged(self, array: Array, spec: Spec, ops: ArrayOps) -> Array:
        return ops.reshape(array, spec.matrix_shape)

    def encode(self, array: Array, ops: ArrayOps, key: Key = ()) -> tuple[Array, ...]:
        spec = Spec(ops.shape(array), wide_dtype(ops.dtype(array)))
        if spec.size == 0:
            return tuple(ops.zeros((count,), dtype) for count, dtype in self.payload(spec))
        matrix = ops.reshape(ops.cast(array, spec.dtype), spec.matrix_shape)
        # An SVD of infinities raises: they are taken out before it, and make what is sent NaN after it.
        poison = ops.sum(matrix * 0.0)
        left, values, right = ops.svd(ops.finite_or_zero_(ops.copy(matrix)))
        picked = self._picked(values, self._slots(spec), ops, key)
        # sigma / p, also where p = 0.
        weights = ops.maximum(values, ops.sum(values) / self.rank)
        scaled = ops.matmul(picked * ops.reshape(weights, (1, -1)), left) + poison
        return ops.flatten(scaled), ops.flatten(ops.matmul(picked, right))

    def decode(self, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Array:
        left, right = self._factors(parts, spec, ops)
        return ops.cast(ops.reshape(ops.matmul(left, right, transpose_a=True), spec.shape), spec.dtype)

    def accumulate_(self, total: Array, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Array:
        left, right = self._factors(parts, spec, ops)
        matrix = ops.reshape(total, spec.matrix_shape)
        return ops.reshape(ops.add_(matrix, ops.matmul(left, right, transpose_a=True)), spec.shape)

    def payload(self, spec: Spec) -> tuple[tuple[int, str], ...]:
        (n, m), slots, dtype = spec.matrix_shape, self._slots(spec), spec.wide.dtype
        return ((slots * n, dtype), (slots * m, dtype))

    def summable(self, spec: Spec) -> bool:
        return False

    @property
    def whole(self) -> bool:
        return True

    def compresses(self, spec: Spec) -> bool:
        n, m = spec.matrix_shape
        return len(spec.shape) >= 2 and self._slots(spec) * (n + m) < n * m

    def _slots(self, spec: Spec) -> int:
        return min(*spec.matrix_shape, self.rank)

    def _factors(self, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> tuple[Array, Array]:
        """Return the parts as (slots, n) and (slots, m)."""
        (n, m), slots = spec.matrix_shape, self._slots(spec)
        return ops.reshape(parts[0], (slots, n)), ops.reshape(parts[1], (slots, m))

    def _picked(self, values: Array, slots: int, ops: ArrayOps, key: Key) -> Array:
        """Return (slots, k): in row j a one for the triplet that the slot holds; zeros where it holds none."""
        dtype, total = ops.dtype(values), ops.sum(values)
        odds = ops.minimum(values / ops.where(total > 0.0, total, 1.0) * self.rank, 1.0)
        # How many of offset, offset + 1, ... are below c_i: the ceiling of c_i - offset.
        taken = -ops.floor(ops.uniform((1,), dtype, key) - ops.cumsum(odds))
        slot = ops.reshape(ops.arange(slots, dtype), (-1, 1))
        triplet = ops.sum(ops.cast(ops.reshape(taken, (1, -1)) <= slot, dtype), axis=1)
        return ops.cast(triplet == ops.reshape(ops.arange(ops.shape(values)[0], dtype), (1, -1)), dtype)
