"""CountSketch: find the largest coordinates of the mean gradient in a small table, then ask for them exactly."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple, final, get_args

from ...codecs.selection import alarm, count_of
from ...contract import (
    Array,
    Context,
    Exchange,
    Exchanged,
    Mean,
    Operator,
    Payload,
    Results,
    Round,
    Spec,
    State,
    Traffic,
    check_at_least,
    check_choice,
    check_fraction,
)
from ...errors import ConfigurationError
from ...ops import ArrayOps
from ..blank import blank
from .agreement import CHECK_BITS, check_agreement, checksum
from .hashes import Hashes
from .polynomial import PolynomialHashes
from .rotation import RotationHashes
from .sizing import SketchSize, sketch_size

Hashing = Literal["rotation", "polynomial"]


class _Applied(NamedTuple):
    """What is applied, equal on all ranks: distinct positions, and the mean there with what marks an overflow."""

    positions: Array
    values: Array
    alarm: Array | float = 0.0


@final
@dataclass(frozen=True, repr=False)
class CountSketch(Operator):
    """The k largest coordinates of the mean gradient, of the whole model at once, found in a count sketch.

    T = mean of tables, T[j, b] = sum of s_j(i) g_i over the i with h_j(i) = b; candidates = the P k largest
    |median_j s_j(i) T[j, h_j(i)]|; mean = the k largest of the exact means at the candidates, 0 elsewhere;
    rest = g_i with zeros at these k.

    Two allreduces, of r c and of P k numbers; no positions travel, as every rank finds the same ones in the same
    table, which a checksum guards. Neither grows with the number of workers. Tables are linear: W workers give what
    one worker with the mean gradient gives. Where P k >= d, everything is asked for at once, without a table.

    Tensors with fewer than two dimensions or `min_size` elements travel dense.

    Args:
        ratio: k / d, above 0 up to 1: coordinates applied a step, k = ceil(ratio d).
        k: coordinates applied a step, >= 1, instead of a ratio; d where there are fewer.
        rows: r, odd.
        columns: c >= 1; `sketch_size(d, k)` proposes it if None. No more than d are used by rotation.
        candidates: P >= 1: coordinates asked for exactly, for each one that is applied.
        second_round: ask for exact values. False: one round, P unused: the k largest estimates themselves are applied,
            and taken off every rank's gradient.
        hashing: "rotation" turns blocks of c coordinates, fast and small; "polynomial" hashes every coordinate.
        min_size: tensors with fewer elements travel dense.
        seed: of the hash functions, equal on all ranks.

    Raises:
        ConfigurationError: a setting is out of range; or, for a gradient, d >= 2^31 - 1 with polynomial hashing.
        CorruptPayloadError: at a step, ranks have chosen different candidates.

    Source: Charikar, Chen, Farach-Colton 2002; Ivkin et al. 2019 (arXiv:1903.04488).
    """

    ratio: float = 0.01
    k: int | None = None
    rows: int = 5
    columns: int | None = None
    candidates: int = 8
    second_round: bool = True
    hashing: Hashing = "rotation"
    min_size: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        check_fraction(self, "ratio", self.ratio)
        for name in ("k", "columns"):
            if getattr(self, name) is not None:
                check_at_least(self, name, getattr(self, name), 1)
        check_at_least(self, "rows", self.rows, 1)
        if self.rows % 2 == 0:
            raise ConfigurationError(f"CountSketch(rows={self.rows!r}): rows must be odd, for a median of them.")
        check_at_least(self, "candidates", self.candidates, 1)
        check_choice(self, "hashing", self.hashing, get_args(Hashing))
        check_at_least(self, "min_size", self.min_size, 0)
        check_at_least(self, "seed", self.seed, 0)

    @property
    def unit_bytes(self) -> float:
        return math.inf

    @property
    def bears_absence(self) -> bool:
        return not self.second_round  # the checksum of what was chosen would be averaged with zeros

    def compresses(self, spec: Spec) -> bool:
        return len(spec.shape) >= 2 and spec.size >= self.min_size

    def applied(self, size: int) -> int:
        """Return k: how many of `size` coordinates are applied a step."""
        return count_of(self.ratio, size) if self.k is None else min(self.k, size)

    def sizes(self, size: int) -> SketchSize:
        """Return the rows and columns that are used for `size` coordinates, and the candidates a coordinate."""
        columns = self.columns or sketch_size(size, self.applied(size)).columns
        if self.hashing == "rotation":
            columns = min(columns, size)
        return SketchSize(self.rows, columns, self.candidates if self.second_round else 1)

    def hashes(self, size: int, ops: ArrayOps) -> Hashes:
        """Return the hash functions for `size` coordinates, on the device of `ops`."""
        return _hashes(self.hashing, size, self.rows, self.sizes(size).columns, self.seed, ops)

    def exchange(self, grad: Array, state: State, context: Context) -> Exchange:
        ops, spec = context.ops, context.spec
        flat = ops.flatten(ops.cast(grad, spec.wide.dtype))
        k, asked = self._counts(spec.size)
        if asked >= spec.size:
            applied = yield from _all_exact(flat, k, ops)
        elif self.second_round:
            applied = yield from self._exact(flat, k, asked, context)
        else:
            applied = yield from self._estimated(flat, k, context)
        mean = ops.put_(blank(context, spec.wide.dtype, flat), applied.positions, applied.values + applied.alarm)
        rest: Array | None = None
        if context.feedback:
            left: Array | float = 0.0
            if asked < spec.size and not self.second_round:
                left = ops.take(flat, applied.positions) - applied.values
            rest = ops.reshape(ops.put_(flat, applied.positions, left), spec.shape)
        mean = ops.cast(ops.reshape(mean, spec.shape), spec.dtype)
        return Exchanged(mean, rest, state, applied.positions)

    def traffic(self, spec: Spec, world_size: int, step: int) -> Traffic:
        _, asked = self._counts(spec.size)
        sizes, dtype = self.sizes(spec.size), spec.wide.dtype
        if asked >= spec.size:
            return ((Payload(Mean, spec.size, dtype),),)
        table = (Payload(Mean, sizes.rows * sizes.columns, dtype),)
        exact = (Payload(Mean, asked, dtype), Payload(Mean, CHECK_BITS, dtype))
        return (table, exact) if self.second_round else (table,)

    def _exact(self, flat: Array, k: int, asked: int, context: Context) -> _Rounds:
        ops, size, dtype = context.ops, context.spec.size, context.spec.wide.dtype
        (table,) = yield [Mean(self._sketched(flat, context), donate=True)]

        def work(ops: ArrayOps, arrays: Sequence[Array], key: Sequence[Any]) -> Sequence[Array]:
            *memory, table = arrays
            found = ops.largest(self.hashes(size, ops).estimates(table, *memory), asked)
            # A number that is not finite spoils more estimates than are asked for exactly.
            return found, checksum(found, dtype, ops), alarm(table, ops)

        memory = _memory(flat, context)
        outputs = [((asked,), "int64"), ((CHECK_BITS,), dtype), ((), dtype)]
        found, own, overflow = ops.at_once(work, [*memory, table], outputs, donated=len(memory))
        values, echo = yield [Mean(ops.take(flat, found), donate=True), Mean(own)]
        check_agreement(echo, own, ops)
        chosen = ops.largest(values, k)
        return _Applied(ops.take(found, chosen), ops.take(values, chosen), overflow)

    def _estimated(self, flat: Array, k: int, context: Context) -> _Rounds:
        ops, size, dtype = context.ops, context.spec.size, context.spec.wide.dtype
        (table,) = yield [Mean(self._sketched(flat, context), donate=True)]

        def work(ops: ArrayOps, arrays: Sequence[Array], key: Sequence[Any]) -> Sequence[Array]:
            *memory, table = arrays
            estimates = self.hashes(size, ops).estimates(table, *memory)
            positions = ops.largest(estimates, k)
            return positions, ops.take(estimates, positions), alarm(table, ops)

        memory = _memory(flat, context)
        outputs = [((k,), "int64"), ((k,), dtype), ((), dtype)]
        return _Applied(*ops.at_once(work, [*memory, table], outputs, donated=len(memory)))

    def _sketched(self, flat: Array, context: Context) -> Array:
        """Return this rank's table."""
        size, sizes = context.spec.size, self.sizes(context.spec.size)

        def work(ops: ArrayOps, arrays: Sequence[Array], key: Sequence[Any]) -> Sequence[Array]:
            return [self.hashes(size, ops).sketch(arrays[0])]

        return context.ops.at_once(work, [flat], [((sizes.rows, sizes.columns), context.spec.wide.dtype)])[0]

    def _counts(self, size: int) -> tuple[int, int]:
        """Return k, and how many values are asked for: P k, or all."""
        k = self.applied(size)
        return k, min(self.sizes(size).candidates * k, size)


_Rounds = Generator[Round, Results, _Applied]


def _all_exact(flat: Array, k: int, ops: ArrayOps) -> _Rounds:
    (average,) = yield [Mean(flat)]
    positions = ops.largest(average, k)
    return _Applied(positions, ops.take(average, positions))


def _memory(like: Array, context: Context) -> list[Array]:
    """Return memory for numbers that are needed before the mean is made: what is spare, if they are of its type."""
    ops, spare = context.ops, context.spare
    usable = spare is not None and ops.in_place and ops.dtype(spare) == ops.dtype(like)
    return [ops.flatten(spare)] if usable else []


@lru_cache(maxsize=8)
def _hashes(hashing: Hashing, size: int, rows: int, columns: int, seed: int, ops: ArrayOps) -> Hashes:
    kind = RotationHashes if hashing == "rotation" else PolynomialHashes
    return kind(size, rows, columns, seed, ops)
