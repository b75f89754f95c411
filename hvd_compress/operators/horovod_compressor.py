"""HorovodCompressor: a compressor written for Horovod's own API, used by our drivers."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, final

from ..contract import Array, Context, Exchange, Exchanged, Operator, Payload, Spec, State, Traffic
from ..errors import ConfigurationError
from .reduction import mean_by

_payloads: dict[tuple[int, Spec], tuple[Any, int, str]] = {}


@final
@dataclass(frozen=True, repr=False)
class HorovodCompressor(Operator):
    """One allreduce between a Horovod compressor's two halves: mean = decompress(1/W sum_i compress(g_i)).

    float16 payloads are divided by W before they are compressed and summed, as in `AllReduce`.

    Args:
        path: where the compressor's class is found, as in "horovod.torch.compression:FP16Compressor".
        instance: the compressor itself, where it is not that class but an object of it.

    Raises:
        ConfigurationError: nothing with `compress` and `decompress` is found there.
    """

    path: str
    instance: Any = None

    def __post_init__(self) -> None:
        self._load()

    def __repr__(self) -> str:
        # Ranks compare what is printed: an object is told by its settings, not by its address.
        if self.instance is None:
            return f"HorovodCompressor({self.path!r})"
        told = repr(self.instance)
        if told == object.__repr__(self.instance):
            told = f"{self.path}({getattr(self.instance, '__dict__', {})!r})"
        return f"HorovodCompressor({self.path!r}, instance={told})"

    @staticmethod
    def of(compressor: Any) -> HorovodCompressor:
        """Return the operator for a compressor class or instance."""
        owner = compressor if isinstance(compressor, type) else type(compressor)
        instance = None if compressor is owner else compressor
        return HorovodCompressor(f"{owner.__module__}:{owner.__qualname__}", instance)

    def exchange(self, grad: Array, state: State, context: Context) -> Exchange:
        ops, spec, compressor = context.ops, context.spec, self._load()
        kind, divisor = mean_by([self._payload(spec)[1]], context.world_size)
        if divisor != 1:
            grad = ops.scale_(grad, 1.0 / divisor)
        payload, ctx = compressor.compress(grad)
        own = compressor.decompress(ops.copy(payload), ctx) if context.feedback else None
        (result,) = yield [kind(payload, donate=not context.feedback)]
        mean = ops.cast(ops.reshape(compressor.decompress(result, ctx), spec.shape), spec.dtype)
        if own is None:
            return Exchanged(mean, None, state)
        rest = ops.add_(ops.copy(grad), own, -1.0)
        return Exchanged(mean, ops.scale_(rest, divisor) if divisor != 1 else rest, state)

    def traffic(self, spec: Spec, world_size: int, step: int) -> Traffic:
        count, dtype = self._payload(spec)
        kind, _ = mean_by([dtype], world_size)
        return ((Payload(kind, count, dtype),),)

    def _payload(self, spec: Spec) -> tuple[int, str]:
        """Return (number of elements, element type) that the compressor makes of zeros of `spec`; found out once."""
        compressor = self._load()
        known = _payloads.get((id(compressor), spec))
        if known is None:
            import torch

            payload, _ = compressor.compress(torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype)))
            # The compressor is kept beside what was found, so that its id stays its own.
            known = compressor, payload.numel(), str(payload.dtype).removeprefix("torch.")
            _payloads[id(compressor), spec] = known
        return known[1:]

    def _load(self) -> Any:
        if self.instance is not None:
            return self.instance
        module, _, name = self.path.partition(":")
        try:
            found: Any = importlib.import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError, ValueError):
            found = None
        if not (hasattr(found, "compress") and hasattr(found, "decompress")):
            raise ConfigurationError(
                f"{self.path!r} names no Horovod compressor; give 'module:Class' of one with compress and decompress."
            )
        return found
