"""AllGather: every rank gets what every rank has encoded, and averages it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ..contract import (
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
    request,
)
from .blank import blank


@final
@dataclass(frozen=True, repr=False)
class AllGather(Operator):
    """Encode, gather all payloads, average what they decode to: mean = 1/W sum_i D(E(g_i)).

    One round, and one loss: each worker's own. The bytes that a worker sends grow with the number of workers:
    W - 1 times the payload. Sums are in float32 (float64 for float64 gradients), in rank order on every rank.

    Args:
        codec: any codec.
    """

    codec: Codec

    def __post_init__(self) -> None:
        check_codec(self, self.codec)

    def compresses(self, spec: Spec) -> bool:
        return self.codec.compresses(spec)

    def dense(self, spec: Spec) -> Operator | None:
        return self if self.codec.votes else None

    @property
    def scales(self) -> bool:
        return not self.codec.votes

    @property
    def block_length(self) -> int:
        return self.codec.block_length

    def exchange(self, grad: Array, state: State, context: Context) -> Exchange:
        ops, spec, codec = context.ops, context.spec, self.codec
        parts = codec.encode(codec.arranged(grad, spec, ops), ops, (context.name, context.step, context.rank))

        def rest() -> Array | None:
            if not context.feedback or codec.lossless(spec):
                return None
            return codec.subtract_(grad, parts, spec, ops)

        *gathered, unsent = yield [*(request.AllGather(part) for part in parts), Meanwhile(rest)]
        # Parts of a codec that loses nothing may be the gradient itself.
        total = ops.reshape(blank(context, spec.wide.dtype, None if codec.lossless(spec) else grad), spec.shape)
        for rank in range(context.world_size):
            total = codec.accumulate_(total, tuple(part[rank] for part in gathered), spec, ops)
        mean = ops.cast(ops.scale_(total, 1.0 / context.world_size), spec.dtype)
        return Exchanged(mean, unsent, state, codec.positions(parts, spec, ops))

    def traffic(self, spec: Spec, world_size: int, step: int) -> Traffic:
        return (tuple(Payload(request.AllGather, count, dtype) for count, dtype in self.codec.payload(spec)),)
