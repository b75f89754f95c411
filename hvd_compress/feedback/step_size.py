"""StepSizeScaling: what was lost at one learning rate is owed at that rate, whatever the next one is."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

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
)
from ..errors import ConfigurationError
from ..operators import Wrapper


@final
@dataclass(frozen=True, repr=False)
class StepSizeScaling(Wrapper):
    """Multiply every residual inside, the workers' and the server's, by eta_{t-1} / eta_t before it is used.

    eta_{-1} = 0, so that the first ratio is 0. At a step with eta_t = 0 nothing is applied, and residuals stay as they
    are. The learning rate is the live optimizer's at each step; a ratio above `cap` is cut to it: a tenfold drop
    multiplies what is owed by ten.

    Args:
        inner: a compressor with residuals.
        cap: largest ratio, > 0; inf for none.

    Raises:
        ConfigurationError: cap is not above 0; or, at a step, the driver knows no learning rate.

    Source: Zheng, Huang, Kwok 2019 (arXiv:1905.10936), Algorithms 1 to 3.
    """

    by_element: ClassVar[bool] = True
    inner: Operator | Codec
    cap: float = math.inf

    def __post_init__(self) -> None:
        check_compressor(self, self.inner)
        number = isinstance(self.cap, (int, float)) and not isinstance(self.cap, bool)
        if not (number and self.cap > 0):
            raise ConfigurationError(f"StepSizeScaling(cap={self.cap!r}): cap must be a number above 0, or inf.")

    @property
    def needs_learning_rate(self) -> bool:
        return True

    def leaves(self, spec: Spec, world_size: int) -> Leaves:
        return {"rate": Leaf((1,), "float64", Scope.REPLICATED), "inner": self.inner_leaves(spec, world_size)}

    def exchange(self, grad: Array, state: State, context: Context) -> Exchange:
        ops, rate = context.ops, context.learning_rate
        if rate is None:
            raise ConfigurationError(
                f"{context.name!r}: residuals follow the learning rate, which is not known here; set `learning_rate` "
                "of the simulator or exchange, or leave out StepSizeScaling (follow_step_size=False)."
            )
        scale: Any = None
        if context.applied:
            ratio = ops.minimum(state["rate"] / rate, ops.zeros((1,), "float64") + self.cap)
            scale = ops.reshape(ops.cast(ratio, context.spec.wide.dtype), ())
        inside = replace(context, memory_scale=scale)
        result = yield from self.inner_operator(context.spec).exchange(grad, state["inner"], inside)
        kept = ops.zeros((1,), "float64") + rate if context.applied else state["rate"]
        return replace(result, state={"rate": kept, "inner": result.state})
