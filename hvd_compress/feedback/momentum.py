"""Momentum: each worker's own, before compression."""

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
    check_compressor,
    check_fraction,
)
from ..operators import Wrapper, dense_stand_in


@final
@dataclass(frozen=True, repr=False)
class Momentum(Wrapper):
    """Local momentum before compression: m = mu m + (1 - dampening) g; what is compressed is g + mu m, or m.

    With nesterov p = g + mu m, else p = m. dist-EF-SGDM has nesterov and no dampening; Signum has dampening = mu and
    no nesterov. Momentum is linear, so that without compression it is the momentum of the mean gradient. The
    optimizer must have none of its own.

    Args:
        inner: the compressor: an operator or codec.
        momentum: mu, 0 <= mu < 1.
        dampening: 0 <= dampening < 1.
        nesterov: look ahead by one step.

    Raises:
        ConfigurationError: a setting is out of range.

    Source: Zheng, Huang, Kwok 2019 (arXiv:1905.10936), Algorithm 3; Bernstein et al. 2018 (arXiv:1802.04434).
    """

    by_element: ClassVar[bool] = True
    inner: Operator | Codec
    momentum: float = 0.9
    dampening: float = 0.0
    nesterov: bool = True

    def __post_init__(self) -> None:
        check_compressor(self, self.inner)
        check_fraction(self, "momentum", self.momentum, zero=True, one=False)
        check_fraction(self, "dampening", self.dampening, zero=True, one=False)

    def seen(self, spec: Spec) -> Spec:
        return spec.wide

    def dense(self, spec: Spec) -> Operator:
        return replace(self, inner=dense_stand_in(self.inner_operator(spec), self.seen(spec)))

    @property
    def has_momentum(self) -> bool:
        return True

    def leaves(self, spec: Spec, world_size: int) -> Leaves:
        velocity = Leaf(spec.shape, spec.wide.dtype, Scope.LOCAL)
        return {"momentum": velocity, "inner": self.inner_leaves(spec, world_size)}

    def exchange(self, grad: Array, state: State, context: Context) -> Exchange:
        ops, spec = context.ops, context.spec
        grad = ops.cast(grad, spec.wide.dtype)
        velocity = ops.add_(ops.scale_(state["momentum"], self.momentum), grad, 1.0 - self.dampening)
        moved = ops.add_(grad, velocity, self.momentum) if self.nesterov else ops.copy(velocity)
        inside = replace(context, spec=self.seen(spec))
        result = yield from self.inner_operator(spec).exchange(moved, state["inner"], inside)
        # An overflow is seen by what was sent; it must not come back at every later step.
        kept = {"momentum": ops.finite_or_zero_(velocity), "inner": result.state}
        return replace(result, mean=ops.cast(result.mean, spec.dtype), state=kept)
