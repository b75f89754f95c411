"""GlobalTopK: ranks merge their largest elements pair by pair, until all have the same k."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import final

from ..codecs.positions import from_wire, index_dtype, to_wire
from ..codecs.selection import count_of, is_large
from ..contract import (
    Array,
    Context,
    Exchange,
    Exchanged,
    Operator,
    Payload,
    Results,
    Round,
    Spec,
    State,
    Swap,
    Traffic,
    check_at_least,
    check_fraction,
)
from ..ops import ArrayOps
from .blank import blank
from .pairs import Pairs
from .sparse_vector import SparseVector, held, merged


@final
@dataclass(frozen=True, repr=False)
class GlobalTopK(Operator):
    """Every rank's k = ceil(ratio d) largest elements, merged pair by pair: add up, keep the k largest.

    Of W ranks m is the largest power of two <= W. Rank r >= m first gives its elements to r - m; in round j < log2 m
    ranks r and r XOR 2^j merge; then r >= m gets the result. Bytes a rank sends grow with log2 W, where those of an
    allgather grow with W; each round waits for the one before it.

    What a merge drops goes back to its owners: an element of this rank counts as sent where it survived every merge
    that this rank, or the rank that it gave its elements to, had a part in. `rest` is all else, so that the mean over
    ranks of (gradient - rest) is what is applied, also where an element that was dropped comes back from another
    rank. `positions` are those applied.

    Args:
        ratio: share of elements that every message holds, 0 < ratio <= 1.
        min_size: tensors with fewer elements, and those with fewer than 2 dimensions, travel dense.

    Raises:
        ConfigurationError: a setting is out of range.

    Source: Shi et al. 2019 (arXiv:1901.04359), Algorithms 2 to 4; any W, and the rest of more than one merge, by us.
    """

    ratio: float = 0.001
    min_size: int = 1024

    def __post_init__(self) -> None:
        check_fraction(self, "ratio", self.ratio)
        check_at_least(self, "min_size", self.min_size, 0)

    def compresses(self, spec: Spec) -> bool:
        return is_large(spec, self.min_size)

    def exchange(self, grad: Array, state: State, context: Context) -> Exchange:
        ops, spec, size = context.ops, context.spec, context.spec.size
        pairs = Pairs(context.rank, context.world_size)
        flat = ops.flatten(ops.cast(grad, spec.wide.dtype))
        chosen = ops.largest(flat, count_of(self.ratio, size))
        own = total = SparseVector(chosen, ops.take(flat, chosen))
        # Whose elements this rank follows through the merges, its own and its guest's, and which of them are still in.
        followed = [own.positions]
        alive = [ops.zeros(ops.shape(chosen), "uint8") + 1]
        if pairs.guests:
            theirs = yield from _swapped(total, pairs.host_or_guest, "guest", size, ops)
            if pairs.is_host:
                followed, alive = [*followed, theirs.positions], alive * 2
                total = merged(total, theirs, ops)
                alive = _survivors(alive, followed, total, ops)
        for j in range(pairs.rounds):
            partner = pairs.partner(j)
            theirs = yield from _swapped(total, partner, f"bit{j}", size, ops)
            if not pairs.is_guest:
                total = merged(*((total, theirs) if context.rank < partner else (theirs, total)), ops)
                alive = _survivors(alive, followed, total, ops)
        if pairs.guests:
            total, mask = yield from _result(total, alive[-1], pairs, size, ops)
            alive = [mask] if pairs.is_guest else alive
        mean = ops.put_(blank(context, spec.wide.dtype, flat), total.positions, total.values / context.world_size)
        rest = None
        if context.feedback:
            left = ops.where(alive[0] == 1, ops.zeros(ops.shape(chosen), spec.wide.dtype), own.values)
            rest = ops.reshape(ops.put_(flat, own.positions, left), spec.shape)
        return Exchanged(ops.cast(ops.reshape(mean, spec.shape), spec.dtype), rest, state, total.positions)

    def traffic(self, spec: Spec, world_size: int, step: int) -> Traffic:
        count, pairs = count_of(self.ratio, spec.size), Pairs(0, world_size)
        vector = (Payload(Swap, count, index_dtype(spec.size)), Payload(Swap, count, spec.wide.dtype))
        rounds: Traffic = (vector,) * pairs.rounds
        return (vector, *rounds, (*vector, Payload(Swap, -(-count // 8), "uint8"))) if pairs.guests else rounds


def _swapped(
    vector: SparseVector, partner: int, pairing: str, size: int, ops: ArrayOps
) -> Generator[Round, Results, SparseVector]:
    """Yield for the partner's vector."""
    positions, values = yield [
        Swap(to_wire(vector.positions, size, ops), partner, pairing),
        Swap(vector.values, partner, pairing),
    ]
    return SparseVector(from_wire(positions, size, ops), values)


def _result(
    total: SparseVector, alive: Array, pairs: Pairs, size: int, ops: ArrayOps
) -> Generator[Round, Results, tuple[SparseVector, Array]]:
    """Yield to pass the result on to a guest, with a bit for each of its elements: whether it is still in."""
    partner = pairs.host_or_guest
    positions, values, bits = yield [
        Swap(to_wire(total.positions, size, ops), partner, "guest"),
        Swap(total.values, partner, "guest"),
        Swap(ops.pack(alive, 1), partner, "guest"),
    ]
    if pairs.is_guest:
        total = SparseVector(from_wire(positions, size, ops), values)
    return total, ops.unpack(bits, 1, ops.shape(alive)[0])


def _survivors(alive: list[Array], followed: list[Array], total: SparseVector, ops: ArrayOps) -> list[Array]:
    """Return which of the followed elements are still in, after a merge; what was dropped once stays out."""
    kept = (held(positions, total.positions, ops) for positions in followed)
    return [before * now for before, now in zip(alive, kept, strict=True)]
