"""MomentumCorrection: a residual that has the momentum of every gradient in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, final

from ..contract import (
    Array,
    Codec,
    Context,
    Exchange,
    Leaf,
    Leaves,
    Operator,
    Scope,
    Spec,
    State,
    check_fraction,
    check_remembered,
)
from ..operators import Wrapper, dense_stand_in


@final
@dataclass(frozen=True, repr=False)
class MomentumCorrection(Wrapper):
    """u = mu u + g; v = v + u; what is compressed is v, and v keeps what was not sent.

    Where elements of v were sent, u is set to zero too (momentum factor masking), so that stale momentum does not
    carry them on. A gradient that travels dense is sent whole at every step, and its u is not masked. As the
    share sent goes to 1, masking leaves no momentum at all: at k = d it is plain SGD.

    Args:
        inner: the compressor: an operator or codec, usually one that sends a few elements.
        momentum: mu, 0 <= mu < 1.
        nesterov: u = mu (u + g); v = v + u + g.
        masking: mask u where v was sent.

    Raises:
        ConfigurationError: a setting is out of range.

    Source: Lin et al. 2018 (arXiv:1712.01887), Algorithm 4; Ivkin et al. 2019 (arXiv:1903.04488), Algorithm 5.
    """

    by_element: ClassVar[bool] = True
    inner: Operator | Codec
    momentum: float = 0.9
    nesterov: bool = False
    masking: bool = True

    def __post_init__(self) -> None:
        check_remembered(self, self.inner)
        check_fraction(self, "momentum", self.momentum, zero=True, one=False)

    def seen(self, spec: Spec) -> Spec:
        return spec.wide

    def dense(self, spec: Spec) -> Operator:
        return replace(self, inner=dense_stand_in(self.inner_operator(spec), self.seen(spec)))

    @property
    def has_momentum(self) -> bool:
        return self.momentum > 0.0

    def leaves(self, spec: Spec, world_size: int) -> Leaves:
        buffer = Leaf(spec.shape, spec.wide.dtype, Scope.LOCAL)
        return {"momentum": buffer, "error": buffer, "inner": self.inner_leaves(spec, world_size)}

    def exchange(self, grad: Array, state: State, context: Context) -> Exchange:
        ops, spec = context.ops, context.spec
        grad, scale = ops.cast(grad, spec.wide.dtype), context.memory_scale
        # At a step that is not applied nothing leaves the memory, though gradients enter the momentum.
        held = ops.copy(state["error"]) if scale is None else None
        if not (scale is None or (isinstance(scale, float) and scale == 1.0)):
            state = {**state, "error": ops.scale_(state["error"], scale)}
        if self.nesterov:
            velocity = ops.scale_(ops.add_(state["momentum"], grad), self.momentum)
            owed = ops.add_(ops.add_(state["error"], velocity), grad)
        else:
            velocity = ops.add_(ops.scale_(state["momentum"], self.momentum), grad)
            owed = ops.add_(state["error"], velocity)
        # The gradient is in the momentum and in what is owed: its memory is free.
        inside = context.with_feedback(spare=grad)
        result = yield from self.inner_operator(spec).exchange(owed, state["inner"], inside)
        rest = ops.zeros(spec.shape, spec.wide.dtype) if result.rest is None else result.rest
        if held is not None:
            rest = held
        elif self.masking and result.positions is not None:
            velocity = ops.reshape(ops.put_(ops.flatten(velocity), result.positions, 0.0), spec.shape)
        kept = {"momentum": ops.finite_or_zero_(velocity), "error": ops.finite_or_zero_(rest), "inner": result.state}
        return replace(result, mean=ops.cast(result.mean, spec.dtype), rest=None, state=kept)
