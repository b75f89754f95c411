"""TwoWay: move any codec at a cost per worker that does not grow with the number of workers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

from ..contract import (
    AllGather,
    AllToAll,
    Array,
    Codec,
    Context,
    Exchange,
    Exchanged,
    Meanwhile,
    Operator,
    Payload,
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

    mean = concat_s D(E(1/W sum_i D(E(g_i[s])))), g cut into W shards of ceil(d/W) elements, the last one padded
    with zeros. Sums are in float32 (float64 for float64 gradients). Bytes per worker: 2 (W-1)/W of the payload.
    The loss of the second encoding is nobody's: it is not in `rest`.

    Args:
        codec: any codec.
    """

    codec: Codec

    def __post_init__(self) -> None:
        check_codec(self, self.codec)

    def exchange(self, grad: Array, state: State, context: Context) -> Exchange:
        ops, spec, codec, world = context.ops, context.spec, self.codec, context.world_size
        shard = self._shard(spec, world)
        key = (context.name, context.step, context.rank)
        rows = _shards(grad, shard.size * world, world, ops)
        encoded = [codec.encode(rows[i], ops, (*key, i)) for i in range(world)]
        parts = [ops.stack([ops.flatten(row[j]) for row in encoded]) for j in range(len(encoded[0]))]

        def rest() -> Array | None:
            if not context.feedback or codec.lossless(shard):
                return None
            own = ops.concat([ops.flatten(codec.decode(row, shard, ops)) for row in encoded])
            unsent = ops.add_(ops.flatten(rows), own, -1.0)
            return ops.reshape(ops.split(unsent, [spec.size, shard.size * world - spec.size])[0], spec.shape)

        *received, unsent = yield [*(AllToAll(part) for part in parts), Meanwhile(rest)]
        average = self._average(received, shard, world, ops)
        served = codec.encode(ops.cast(average, spec.dtype), ops, (*key, "server"))
        gathered = yield [AllGather(part) for part in served]
        decoded = [codec.decode(tuple(part[i] for part in gathered), shard, ops) for i in range(world)]
        whole = ops.concat([ops.flatten(piece) for piece in decoded])
        mean = ops.split(whole, [spec.size, shard.size * world - spec.size])[0]
        return Exchanged(ops.reshape(mean, spec.shape), unsent, state)

    def traffic(self, spec: Spec, world_size: int, step: int) -> Traffic:
        payload = self.codec.payload(self._shard(spec, world_size))
        return (
            tuple(Payload(AllToAll, world_size * count, dtype) for count, dtype in payload),
            tuple(Payload(AllGather, count, dtype) for count, dtype in payload),
        )

    @staticmethod
    def _shard(spec: Spec, world_size: int) -> Spec:
        return replace(spec, shape=(-(-spec.size // world_size),))

    def _average(self, received: list[Array], shard: Spec, world: int, ops: ArrayOps) -> Array:
        wide = wide_dtype(shard.dtype)
        total = ops.zeros(shard.shape, wide)
        for i in range(world):
            row = self.codec.decode(tuple(part[i] for part in received), shard, ops)
            total = ops.add_(total, ops.cast(row, wide))
        return ops.scale_(total, 1.0 / world)


def _shards(grad: Array, padded: int, world: int, ops: ArrayOps) -> Array:
    """Return the gradient as (world, shard) rows, padded with zeros."""
    flat = ops.flatten(grad)
    missing = padded - ops.shape(flat)[0]
    if missing:
        flat = ops.concat([flat, ops.zeros((missing,), ops.dtype(flat))])
    return ops.reshape(flat, (world, padded // world))
