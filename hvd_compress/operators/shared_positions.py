"""SharedPositions: all ranks send the same few elements, which they agree upon without a word."""

from __future__ import annotations

from abc import abstractmethod

from ..codecs.selection import alarm, count_of, is_large
from ..contract import (
    Array,
    Context,
    Exchange,
    Exchanged,
    Mean,
    Meanwhile,
    Operator,
    Payload,
    Spec,
    State,
    Traffic,
    check_at_least,
    check_fraction,
)
from .blank import blank


class SharedPositions(Operator):
    """Sends the k = ceil(ratio d) elements at positions drawn from (seed, name, step); subclasses draw.

    One allreduce of k values, no positions. The gradient is not scaled up. A rank whose gradient is not finite where
    nothing is sent from sends NaN, so that all ranks see it.
    """

    ratio: float
    seed: int
    min_size: int

    def __post_init__(self) -> None:
        check_fraction(self, "ratio", self.ratio)
        check_at_least(self, "seed", self.seed, 0)
        check_at_least(self, "min_size", self.min_size, 0)

    @abstractmethod
    def draw(self, count: int, context: Context) -> Array:
        """Return `count` different positions, equal on all ranks."""

    def compresses(self, spec: Spec) -> bool:
        return is_large(spec, self.min_size)

    def exchange(self, grad: Array, state: State, context: Context) -> Exchange:
        ops, spec = context.ops, context.spec
        flat = ops.flatten(ops.cast(grad, spec.wide.dtype))
        positions = self.draw(count_of(self.ratio, spec.size), context)
        values = ops.take(flat, positions) + alarm(flat, ops)

        def rest() -> Array | None:
            return ops.reshape(ops.put_(flat, positions, 0.0), spec.shape) if context.feedback else None

        mean, unsent = yield [Mean(values, donate=True), Meanwhile(rest)]
        whole = ops.put_(blank(context, spec.dtype, flat), positions, ops.cast(mean, spec.dtype))
        return Exchanged(ops.reshape(whole, spec.shape), unsent, state, positions)

    def traffic(self, spec: Spec, world_size: int, step: int) -> Traffic:
        return ((Payload(Mean, count_of(self.ratio, spec.size), spec.wide.dtype),),)
