"""TwoWay: move any codec at a cost per worker that does not grow with the number of workers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, final

from ..contract import (
    AllGather,
    AllToAll,
    Array,
    Codec,
    Context,
    Exchange,
    Exchanged,
    Leaf,
    Leaves,
    Meanwhile,
    Operator,
    Payload,
    Scope,
    Spec,
    State,
    Traffic,
    check_codec,
    wide_dtype,
)
from ..ops import ArrayOps


@final
@dataclass(frozen=True, repr=False)
class TwoWay(Operator):
    """Every rank is the server of one shard: alltoall of encoded shards, average, encode again, allgather.

    p = 1/W sum_i D(E(g_i[s])) + E_s; mean[s] = D(E(p)); E_s <- p - mean[s], on the rank that serves shard s; g is cut
    into W shards of ceil(d/W) elements, the last one padded with zeros. Sums are in float32 (float64 for float64
    gradients). Bytes per worker: 2 (W-1)/W of the payload.

    Without the server's residual E the loss of the second encoding is nobody's: it is never in `rest`.

    Args:
        codec: any codec.
        server_feedback: keep what the second encoding loses and add it to the next average.

    Source: Zheng, Huang, Kwok 2019 (arXiv:1905.10936), Algorithms 2 and 3, with a server on every rank.
    """

    codec: Codec
    server_feedback: bool = False

    def __post_init__(self) -> None:
        check_codec(self, self.codec)

    def compresses(self, spec: Spec) -> bool:
        return self.codec.compresses(spec)

    def dense(self, spec: Spec) -> Operator | None:
        return self if self.codec.votes else None

    @property
    def scales(self) -> bool:
        return not self.codec.votes

    def leaves(self, spec: Spec, world_size: int) -> Leaves:
        if not self.server_feedback:
            return {}
        return {"server": Leaf(shards_of(spec, world_size)[0].shape, spec.wide.dtype, Scope.SHARDED)}

    @property
    def block_length(self) -> int:
        return self.codec.block_length

    def exchange(self, grad: Array, state: State, context: Context) -> Exchange:
        ops, spec, world = context.ops, context.spec, context.world_size
        shards = shards_of(spec, world)
        key = (context.name, context.step, context.rank)
        sizes = [shard.size for shard in shards]
        pieces = ops.split(ops.flatten(grad), sizes)
        encoded = [self._encode(piece, shards[0], ops, (*key, i)) for i, piece in enumerate(pieces)]
        parts = [ops.stack([row[j] for row in encoded]) for j in range(len(encoded[0]))]

        def rest() -> Array | None:
            if not context.feedback or self.codec.lossless(shards[0]):
                return None

            def lost(i: int, piece: Array) -> Array:
                own = self._own_parts(encoded[i], shards[i])
                return self.codec.subtract_(piece, own, shards[i], ops) if shards[i].size else piece

            return ops.reshape(ops.change_parts_(ops.flatten(grad), sizes, lost), spec.shape)

        *received, unsent = yield [*(AllToAll(part) for part in parts), Meanwhile(rest)]
        served, state = self._serve(received, state, context, shards, (*key, "server"))
        gathered = yield [AllGather(part) for part in served]

        def decoded(i: int, piece: Array) -> Array:
            row = self._own_parts(tuple(part[i] for part in gathered), shards[i])
            return self.codec.decode_to_(piece, row, shards[i], ops) if shards[i].size else piece

        out = context.spare
        if out is None:
            out = ops.zeros(spec.shape, spec.dtype) if context.feedback else grad
        mean = ops.change_parts_(ops.flatten(out), sizes, decoded)
        return Exchanged(ops.reshape(mean, spec.shape), unsent, state)

    def traffic(self, spec: Spec, world_size: int, step: int) -> Traffic:
        payload = self.codec.payload(shards_of(spec, world_size)[0])
        return (
            tuple(Payload(AllToAll, world_size * count, dtype) for count, dtype in payload),
            tuple(Payload(AllGather, count, dtype) for count, dtype in payload),
        )

    def _encode(self, piece: Array, largest: Spec, ops: ArrayOps, key: tuple[Any, ...]) -> tuple[Array, ...]:
        """Return the parts of a shard, filled up to what the largest shard takes."""
        declared = self.codec.payload(largest)
        if ops.shape(piece)[0] == 0:
            return tuple(ops.zeros((count,), dtype) for count, dtype in declared)
        parts = self.codec.encode(piece, ops, key)
        # A small shard may write positions as smaller integers than a large one.
        return tuple(
            ops.cast(ops.padded(ops.flatten(part), count), dtype)
            for part, (count, dtype) in zip(parts, declared, strict=True)
        )

    def _own_parts(self, parts: tuple[Array, ...], shard: Spec) -> tuple[Array, ...]:
        """Return the parts without what `_encode` filled up."""
        declared = self.codec.payload(shard)
        return tuple(part[:count] for part, (count, _) in zip(parts, declared, strict=True))

    def _average(self, total: Array, received: list[Array], shard: Spec, ops: ArrayOps) -> Array:
        """Return the mean over ranks of what they sent of a shard, each with the donated total / W added."""
        # The mean is made of the sum: votes are whole numbers, and ties among them are found only while they are.
        world = ops.shape(received[0])[0]
        for i in range(world if shard.size else 0):
            row = self._own_parts(tuple(part[i] for part in received), shard)
            total = self.codec.accumulate_(total, row, shard, ops)
        return ops.scale_(total, 1.0 / world)

    def _serve(
        self, received: list[Array], state: State, context: Context, shards: list[Spec], key: tuple[Any, ...]
    ) -> tuple[tuple[Array, ...], State]:
        """Return the encoded average of this rank's shard, and the state with what the encoding lost."""
        ops, shard = context.ops, shards[context.rank]
        remembers = self.server_feedback and context.memory_scale is not None
        if remembers:
            # It is added up where the memory is, so that nothing of the shard's size is made.
            owed = ops.scale_(state["server"][: shard.size], context.memory_scale * float(context.world_size))
        else:
            owed = ops.zeros(shard.shape, wide_dtype(shard.dtype))
        average = self._average(owed, received, shard, ops)
        served = self._encode(ops.cast(average, shard.dtype), shards[0], ops, key)
        if not remembers:
            return served, state
        # What is served may share memory with the average, where the codec is lossless.
        lost = ops.copy(average) if self.codec.lossless(shard) else average
        if shard.size:
            lost = self.codec.subtract_(lost, self._own_parts(served, shard), shard, ops)
        return served, {"server": ops.padded(ops.finite_or_zero_(lost), shards[0].size)}


def shards_of(spec: Spec, world_size: int) -> list[Spec]:
    """Return the flat shard of every rank: ceil(d/W) elements each, the last ones shorter or empty."""
    length = -(-spec.size // world_size)
    sizes = (min(length, max(spec.size - rank * length, 0)) for rank in range(world_size))
    return [replace(spec, shape=(size,)) for size in sizes]
