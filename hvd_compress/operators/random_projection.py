"""RandomProjection: some coefficients of a randomised Hadamard transform, the same on all workers, stand for all."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import final

from ..contract import (
    Array,
    Codec,
    Context,
    Exchange,
    Exchanged,
    Leaves,
    Operator,
    Spec,
    State,
    check_at_least,
    check_compressor,
    check_fraction,
    walk,
)
from ..errors import ConfigurationError
from ..ops import ArrayOps
from .wrapper import Wrapper


@final
@dataclass(frozen=True, repr=False)
class RandomProjection(Wrapper):
    """y = T x by blocks of B elements, T = k rows of H D / sqrt(B); y travels by `inner`; mean = T^T mean(y).

    H is the Hadamard matrix, D random signs; signs and rows are drawn anew at every step and for every unit, the same
    on all ranks. The rows of T are orthonormal: T^T T is a projection, which keeps k/B of ||x||^2 on average over
    draws, and what a worker's inner compressor loses is lost in y alone: rest = x - T^T (y - rest of y). The update is
    short by k/B on average: put error feedback around it. Transforms take log2(B) passes and no matrix.

    Spread over all coefficients, a block has no outliers: the max norm of a quantiser inside is near its deviation.

    Args:
        inner: the compressor of y: an operator or codec; of no memory of its own, since T changes at every step.
        share: k/B, above 0, at most 1; at least one row is kept.
        block: B, a power of two; smaller gradients take the next power of two above their size.
        seed: of signs and rows, equal on all ranks.

    Raises:
        ConfigurationError: a setting is out of range.

    Source: Abdi, Fekri 2020 (AAAI 34), "Quantized Compressive Sampling of Stochastic Gradients for Efficient
    Communication in Distributed Deep Training".
    """

    inner: Operator | Codec
    share: float = 0.5
    block: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        check_compressor(self, self.inner)
        check_fraction(self, "share", self.share)
        check_at_least(self, "block", self.block, 1)
        if self.block & (self.block - 1):
            raise ConfigurationError(f"RandomProjection(block={self.block!r}): block must be a power of two.")
        check_at_least(self, "seed", self.seed, 0)

    def seen(self, spec: Spec) -> Spec:
        _, rows, blocks = self._sizes(spec)
        return replace(spec.wide, shape=(rows * blocks,))

    def compresses(self, spec: Spec) -> bool:
        return True

    def dense(self, spec: Spec) -> Operator | None:
        return self.inner_operator(spec).dense(self.seen(spec))

    def leaves(self, spec: Spec, world_size: int) -> Leaves:
        inner = self.inner_leaves(spec, world_size)
        if dict(walk(inner)):
            raise ConfigurationError(
                f"{self!r}: the projection changes at every step, so that a memory inside would be of another one; put "
                "the memory around the projection."
            )
        return {}

    def exchange(self, grad: Array, state: State, context: Context) -> Exchange:
        ops, spec = context.ops, context.spec
        block, _, blocks = self._sizes(spec)
        key = (self.seed, context.name, context.step)
        signs = ops.signs((block, 1), spec.wide.dtype, (*key, "signs")) * (1.0 / math.sqrt(block))
        kept = ops.sample(block, self._sizes(spec)[1], (*key, "rows"))
        x = ops.cast(ops.flatten(grad), spec.wide.dtype)
        # Block j is every blocks-th element from the j-th: all passes then go over whole rows.
        table = ops.reshape(ops.padded(x, block * blocks), (block, blocks))
        y = ops.flatten(ops.take(transformed(table * signs, ops), kept))

        def back(coefficients: Array) -> Array:
            rows = ops.reshape(coefficients, (-1, blocks))
            whole = transformed(ops.put_(ops.zeros((block, blocks), spec.wide.dtype), kept, rows), ops) * signs
            return ops.reshape(ops.flatten(whole)[: spec.size], spec.shape)

        own = ops.copy(y) if context.feedback else None
        inside = replace(context, spec=self.seen(spec), parameter=None, spare=None)
        result = yield from self.inner_operator(spec).exchange(y, {}, inside)
        mean = ops.cast(back(result.mean), spec.dtype)
        rest: Array | None = None
        if own is not None:
            sent = own if result.rest is None else ops.add_(own, result.rest, -1.0)
            rest = ops.add_(ops.reshape(x, spec.shape), back(sent), -1.0)
        return Exchanged(mean, rest, {})

    def _sizes(self, spec: Spec) -> tuple[int, int, int]:
        """Return the elements of a block, those kept of it, and the number of blocks."""
        size = max(spec.size, 1)
        block = min(self.block, 1 << (size - 1).bit_length())
        return block, max(1, math.ceil(self.share * block)), -(-size // block)


def transformed(table: Array, ops: ArrayOps) -> Array:
    """Return H table for the Hadamard matrix H (Sylvester's) of as many rows, a power of two: H H = rows I."""
    size, columns = ops.shape(table)
    length = 1
    while length < size:
        pairs = ops.reshape(table, (size // (2 * length), 2, length * columns))
        first, second = ops.split(pairs, [1, 1], axis=1)
        table = ops.concat([first + second, first - second], axis=1)
        length *= 2
    return ops.reshape(table, (size, columns))
