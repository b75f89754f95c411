"""ErrorFeedback: what a compressor leaves out is added to the next gradient."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, final

from ..contract import (
    Array,
    Codec,
    Context,
    Exchange,
    Exchanged,
    Leaf,
    Leaves,
    Operator,
    Scope,
    Spec,
    State,
    check_finite,
    check_remembered,
)
from ..operators import Wrapper


@final
@dataclass(frozen=True, repr=False)
class ErrorFeedback(Wrapper):
    """Memory around any compressor: p = g + a h; s = C(p); h <- b h + (g - s), h starting from zero.

    | memory                                              | (a, b)        |
    |-----------------------------------------------------|---------------|
    | EF-SGD, MEM-SGD, PowerSGD                           | (1, 1)        |
    | low-pass filter (ScaleCom eq. 5), beta              | (beta, 1)     |
    | forgetting (previous weighted error feedback), beta | (1, 1 - beta) |

    With rest = p - s this is h <- (b - a) h + rest: for a = b the rest is the memory, and nothing is computed.
    The residual is kept in at least float32, per unit name, local to each rank; where a step was not finite it is
    reset to zero, so that one overflow does not poison the steps after it.

    Args:
        inner: the compressor: an operator or codec.
        a: weight of the memory in what is compressed.
        b: weight of the memory that is kept.

    Raises:
        ConfigurationError: a or b is not a finite number.

    Source: Karimireddy et al. 2019 (arXiv:1901.09847), Algorithm 2, for (1, 1).
    """

    by_element: ClassVar[bool] = True
    inner: Operator | Codec
    a: float = 1.0
    b: float = 1.0

    def __post_init__(self) -> None:
        check_remembered(self, self.inner)
        check_finite(self, "a", self.a)
        check_finite(self, "b", self.b)

    def seen(self, spec: Spec) -> Spec:
        return spec.wide

    def leaves(self, spec: Spec, world_size: int) -> Leaves:
        error = Leaf(spec.shape, spec.wide.dtype, Scope.LOCAL)
        return {"error": error, "inner": self.inner_leaves(spec, world_size)}

    def exchange(self, grad: Array, state: State, context: Context) -> Exchange:
        ops, spec, scale = context.ops, context.spec, context.memory_scale
        inner = self.inner_operator(spec)
        memory, same = state["error"], self.a == self.b
        grad = ops.cast(grad, spec.wide.dtype)
        if scale is None:
            result = yield from inner.exchange(grad, state["inner"], context.with_feedback())
            return self._outcome(result, ops.finite_or_zero_(memory), context)
        # The sum becomes the next memory, which must not be the gradient's: that is the caller's again afterwards.
        if same:
            corrected = ops.scale_and_add_(memory, scale if self.a == 1.0 else scale * self.a, grad)
        else:
            memory = ops.scale_(memory, scale)
            corrected = ops.add_(ops.copy(grad), memory, self.a)
        result = yield from inner.exchange(corrected, state["inner"], context.with_feedback(spare=grad))
        rest = ops.zeros(spec.shape, spec.wide.dtype) if result.rest is None else result.rest
        if not same:
            rest = ops.add_(rest, memory, self.b - self.a)
        # A step that overflowed is skipped by loss scaling; its infinities must not come back at every later step.
        error = rest if same and result.rest_is_finite else ops.finite_or_zero_(rest)
        return self._outcome(result, error, context)

    @staticmethod
    def _outcome(result: Exchanged, error: Array, context: Context) -> Exchanged:
        state = {"error": error, "inner": result.state}
        mean = context.ops.cast(result.mean, context.spec.dtype)
        return replace(result, mean=mean, rest=None, state=state)
