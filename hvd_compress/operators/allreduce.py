"""AllReduce: move a codec whose payload can be summed, in one round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ..contract import (
    Array,
    Codec,
    Context,
    Exchange,
    Exchanged,
    Mean,
    Meanwhile,
    Operator,
    Payload,
    Spec,
    State,
    Sum,
    Traffic,
    check_codec,
)
from ..errors import ConfigurationError
from .reduction import mean_by


@final
@dataclass(frozen=True, repr=False)
class AllReduce(Operator):
    """Encode, average the payloads over all ranks, decode: mean = D(1/W sum_i E(g_i)).

    float16 payloads are divided by W before they are rounded and summed, so that a sum of W numbers does not
    overflow where their mean is in range (but for rounding at the very end of it, 65504).

    Args:
        codec: one whose payload is summable, such as `Identity` or `Cast("float16")`.
    """

    codec: Codec

    def __post_init__(self) -> None:
        check_codec(self, self.codec)

    def compresses(self, spec: Spec) -> bool:
        return self.codec.compresses(spec)

    @property
    def elementwise(self) -> bool:
        return self.codec.elementwise

    @property
    def block_length(self) -> int:
        return self.codec.block_length

    def exchange(self, grad: Array, state: State, context: Context) -> Exchange:
        ops, spec, codec = context.ops, context.spec, self.codec
        kind, divisor = self._reduction(spec, context.world_size)
        if divisor != 1:
            grad = ops.scale_(grad, 1.0 / divisor)
        parts = codec.encode(grad, ops, (context.name, context.step, context.rank))
        leaves_rest = context.feedback and not codec.lossless(spec)

        def rest() -> Array | None:
            if not leaves_rest:
                return None
            unsent = ops.add_(grad, codec.decode(parts, spec, ops), -1.0)
            return ops.scale_(unsent, divisor) if divisor != 1 else unsent

        apart = codec.lossless(spec)
        results = yield [*(kind(part, donate=not leaves_rest, apart=apart) for part in parts), Meanwhile(rest)]
        mean = codec.decode(tuple(results[:-1]), spec, ops)
        return Exchanged(ops.reshape(mean, spec.shape), results[-1], state)

    def traffic(self, spec: Spec, world_size: int, step: int) -> Traffic:
        kind, _ = self._reduction(spec, world_size)
        apart = self.codec.lossless(spec)
        return (tuple(Payload(kind, count, dtype, apart) for count, dtype in self.codec.payload(spec)),)

    def _reduction(self, spec: Spec, world_size: int) -> tuple[type[Mean] | type[Sum], int]:
        """Return the collective to use and the number to divide by before it."""
        if not self.codec.summable(spec):
            raise ConfigurationError(
                f"AllReduce({self.codec!r}) cannot add up payloads of a {spec.dtype} gradient; use "
                f"TwoWay({self.codec!r}) instead."
            )
        return mean_by([dtype for _, dtype in self.codec.payload(spec)], world_size)
