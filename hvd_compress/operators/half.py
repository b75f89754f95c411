"""Half: 16-bit floats on every wire of any compressor."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, final

from ..contract import (
    AllGather,
    AllToAll,
    Array,
    Broadcast,
    Codec,
    Context,
    Exchange,
    Exchanged,
    Leaves,
    Mean,
    Operator,
    Payload,
    Request,
    Spec,
    State,
    Sum,
    Traffic,
    check_compressor,
)
from ..ops import ArrayOps
from .carry import dense_stand_in
from .wrapper import Wrapper

_WIDE = ("float32", "float64")
# Maxima scale what others round, and partners of a swap use their own array besides: both must stay exact.
_NARROWED = (Mean, Sum, AllGather, AllToAll, Broadcast)


@final
@dataclass(frozen=True, repr=False)
class Half(Wrapper):
    """Send every 32- and 64-bit float of a compressor as float16: factors, values, norms, what travels dense.

    mean(x) is sent as sum(fp16(x / W)), so that a sum of W numbers does not overflow where their mean is in range.
    Integers, packed bits, maxima and swaps travel as they are. Numbers above 65504 become infinite, as loss scaling
    expects; those below 6e-8 vanish. What this rounding loses is in nobody's residual: at most 2^-11 of each number
    above 6e-5, besides that of a float16 sum.

    Args:
        inner: the compressor: an operator or codec.
    """

    inner: Operator | Codec

    def __post_init__(self) -> None:
        check_compressor(self, self.inner)

    def dense(self, spec: Spec) -> Operator:
        return replace(self, inner=dense_stand_in(self.inner_operator(spec), spec))

    def leaves(self, spec: Spec, world_size: int) -> Leaves:
        return self.inner_leaves(spec, world_size)

    def exchange(self, grad: Array, state: State, context: Context) -> Exchange:
        ops, world = context.ops, context.world_size
        inner = self.inner_operator(context.spec).exchange(grad, state, context)
        answers: Any = None
        while True:
            try:
                requests = inner.send(answers)
            except StopIteration as end:
                result: Exchanged = end.value
                return result
            results = yield [_narrowed(request, ops, world) for request in requests]
            answers = [_widened(x, r, ops, world) for x, r in zip(results, requests, strict=True)]

    def traffic(self, spec: Spec, world_size: int, step: int) -> Traffic:
        inner = super().traffic(spec, world_size, step)
        return tuple(tuple(_narrowed_payload(payload) for payload in payloads) for payloads in inner)


def _narrowed_payload(payload: Payload) -> Payload:
    if payload.kind not in _NARROWED or payload.dtype not in _WIDE:
        return payload
    return replace(payload, kind=Sum if payload.kind is Mean else payload.kind, dtype="float16")


def _narrows(request: Request, ops: ArrayOps) -> bool:
    return isinstance(request, _NARROWED) and ops.dtype(request.array) in _WIDE


def _narrowed(request: Request, ops: ArrayOps, world_size: int) -> Request:
    """Return the request to make instead; local work stays what it is."""
    if not isinstance(request, _NARROWED) or not _narrows(request, ops):
        return request
    if isinstance(request, (Mean, Sum)):
        return Sum(ops.cast(request.array * (1.0 / world_size), "float16"), donate=True, apart=request.apart)
    return replace(request, array=ops.cast(request.array, "float16"))


def _widened(result: Any, request: Request, ops: ArrayOps, world_size: int) -> Any:
    """Return the result as the one who asked expects it."""
    if not isinstance(request, _NARROWED) or not _narrows(request, ops):
        return result
    wide = ops.cast(result, ops.dtype(request.array))
    return ops.scale_(wide, float(world_size)) if isinstance(request, Sum) else wide
