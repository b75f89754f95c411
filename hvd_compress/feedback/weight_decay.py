"""LocalWeightDecay: weight decay that needs no communication, with its own momentum."""

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
    check_finite,
    check_fraction,
)
from ..errors import ConfigurationError
from ..operators import Wrapper, dense_stand_in


@final
@dataclass(frozen=True, repr=False)
class LocalWeightDecay(Wrapper):
    """Add lambda x and its momentum to the update, after decompression: n = mu n + lambda x; mean + lambda x + mu n.

    Parameters are equal on all ranks, so that their decay need not travel. With mu the momentum of the gradient it is
    what torch's SGD(nesterov=True, weight_decay=lambda) does; the optimizer must have no weight decay of its own.

    Args:
        inner: the compressor: an operator or codec.
        decay: lambda >= 0.
        momentum: mu, 0 <= mu < 1.

    Raises:
        ConfigurationError: a setting is out of range; or, at a step, the driver knows no parameters.

    Source: the authors' code of Zheng, Huang, Kwok 2019 (arXiv:1905.10936).
    """

    by_element: ClassVar[bool] = True
    inner: Operator | Codec
    decay: float
    momentum: float = 0.9

    def __post_init__(self) -> None:
        check_compressor(self, self.inner)
        check_finite(self, "decay", self.decay, 0.0)
        check_fraction(self, "momentum", self.momentum, zero=True, one=False)

    def dense(self, spec: Spec) -> Operator:
        return replace(self, inner=dense_stand_in(self.inner_operator(spec), spec))

    @property
    def needs_parameters(self) -> bool:
        return True

    @property
    def scales(self) -> bool:
        return self.decay == 0.0

    def leaves(self, spec: Spec, world_size: int) -> Leaves:
        decayed = Leaf(spec.shape, spec.wide.dtype, Scope.REPLICATED)
        return {"decay": decayed, "inner": self.inner_leaves(spec, world_size)}

    def exchange(self, grad: Array, state: State, context: Context) -> Exchange:
        ops, spec = context.ops, context.spec
        if context.parameter is None:
            raise ConfigurationError(
                f"{context.name!r}: weight decay needs the parameters, which are not known here; set `parameters` on "
                "the exchange, or weight decay in the optimizer instead."
            )
        parameter = ops.cast(context.parameter, spec.wide.dtype)
        result = yield from self.inner_operator(spec).exchange(grad, state["inner"], context)
        decayed = ops.add_(ops.scale_(state["decay"], self.momentum), parameter, self.decay)
        update = ops.add_(ops.copy(ops.cast(result.mean, spec.wide.dtype)), parameter, self.decay)
        update = ops.add_(update, decayed, self.momentum)
        kept = {"decay": ops.finite_or_zero_(decayed), "inner": result.state}
        return replace(result, mean=ops.cast(update, spec.dtype), state=kept)
