"""LocalClip: each worker's gradient is clipped before anything else."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import final

from ..contract import Array, Codec, Context, Exchange, Leaves, Operator, Spec, State, check_compressor, check_finite
from ..errors import ConfigurationError
from .carry import dense_stand_in
from .wrapper import Wrapper


@final
@dataclass(frozen=True, repr=False)
class LocalClip(Wrapper):
    """Scale this worker's gradient of a unit down to l2 norm c/sqrt(W) where it is longer, then compress.

    g <- g min(1, c / (sqrt(W) ||g||)). W gradients of that norm that point in random directions add up to a norm of
    c. A gradient that is not finite becomes NaN. What is clipped off is in `rest`: a memory around this wrapper would
    bring it back, so put the memory inside.

    Args:
        inner: the compressor: an operator or codec.
        norm: c > 0, of the sum over workers, for every unit by itself.

    Raises:
        ConfigurationError: norm is not above 0.

    Source: Lin et al. 2018 (arXiv:1712.01887), local gradient clipping.
    """

    inner: Operator | Codec
    norm: float

    def __post_init__(self) -> None:
        check_compressor(self, self.inner)
        check_finite(self, "norm", self.norm)
        if self.norm <= 0:
            raise ConfigurationError(f"LocalClip(norm={self.norm!r}): norm must be above 0.")

    def seen(self, spec: Spec) -> Spec:
        return spec.wide

    def dense(self, spec: Spec) -> Operator:
        return replace(self, inner=dense_stand_in(self.inner_operator(spec), self.seen(spec)))

    @property
    def scales(self) -> bool:
        return False

    def leaves(self, spec: Spec, world_size: int) -> Leaves:
        return self.inner_leaves(spec, world_size)

    def exchange(self, grad: Array, state: State, context: Context) -> Exchange:
        ops, spec = context.ops, context.spec
        grad = ops.cast(grad, spec.wide.dtype)
        bound = self.norm / math.sqrt(context.world_size)
        # Squares of the elements as they are may be out of range where the elements are not.
        largest = ops.max(ops.abs(grad))
        scale = ops.where(largest == 0.0, largest + 1.0, largest)
        norm = ops.norm(grad / scale) * scale
        factor = bound / ops.maximum(norm, bound)
        clipped = ops.reshape(grad * factor, spec.shape)
        inside = replace(context, spec=self.seen(spec))
        result = yield from self.inner_operator(spec).exchange(clipped, state, inside)
        rest = result.rest
        if context.feedback:
            lost = ops.reshape(grad * (1.0 - factor), spec.shape)
            rest = lost if rest is None else ops.add_(lost, rest)
        return replace(result, mean=ops.cast(result.mean, spec.dtype), rest=rest, rest_is_finite=False)
