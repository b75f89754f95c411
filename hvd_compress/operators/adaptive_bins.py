"""AdaptiveBins: every bin of elements sends those that its newest gradient would lift above its largest residual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ..codecs.selection import is_large
from ..contract import (
    AllGather,
    Array,
    Context,
    Exchange,
    Exchanged,
    Leaf,
    Leaves,
    Operator,
    Payload,
    Scope,
    Spec,
    State,
    Traffic,
    check_at_least,
)
from ..errors import ConfigurationError
from ..ops import ArrayOps

# Codes are int16: the place in a bin, from 1, with a sign.
_LARGEST_BIN = 32767


@final
@dataclass(frozen=True, repr=False)
class AdaptiveBins(Operator):
    """G = R + g; H = G + g; of every bin send where |H| >= max |G|, as sign(G) s, s the mean of all max |G|.

    R <- G - sent: the memory is inside, since the choice needs it and the gradient both. How many elements a bin sends
    follows from its own numbers; the payload has room for `slots` a bin, and more than that wait for the next step.
    Bins of zeros send nothing and do not count in s. One allgather: a code of 2 bytes a slot, and s; bytes a rank sends
    grow with W.

    Args:
        bin_size: consecutive elements a bin, 1 to 32767, of matrices.
        conv_bin_size: the same of tensors with more than 2 dimensions.
        slots: elements that a bin can send a step, >= 1: those with the largest |H|.
        min_size: tensors with fewer elements, and those with fewer than 2 dimensions, travel dense.

    Raises:
        ConfigurationError: a setting is out of range.

    Source: Chen et al. 2018 (arXiv:1712.02679), Algorithm 2.
    """

    bin_size: int = 500
    conv_bin_size: int = 50
    slots: int = 4
    min_size: int = 1024

    def __post_init__(self) -> None:
        for name in ("bin_size", "conv_bin_size"):
            check_at_least(self, name, getattr(self, name), 1)
            if getattr(self, name) > _LARGEST_BIN:
                raise ConfigurationError(
                    f"{type(self).__name__}({name}={getattr(self, name)!r}): {name} must be at most {_LARGEST_BIN}."
                )
        check_at_least(self, "slots", self.slots, 1)
        check_at_least(self, "min_size", self.min_size, 0)

    def compresses(self, spec: Spec) -> bool:
        return is_large(spec, self.min_size)

    def leaves(self, spec: Spec, world_size: int) -> Leaves:
        return {"error": Leaf(spec.shape, spec.wide.dtype, Scope.LOCAL)}

    def exchange(self, grad: Array, state: State, context: Context) -> Exchange:
        ops, spec, scale = context.ops, context.spec, context.memory_scale
        grad = ops.flatten(ops.cast(grad, spec.wide.dtype))
        memory = ops.flatten(state["error"])
        owed = ops.copy(grad) if scale is None else ops.scale_(ops.copy(memory), scale) + grad
        codes, unit = self._encode(owed, grad, spec, ops)
        gathered, units = yield [AllGather(codes), AllGather(unit)]
        total = ops.zeros((spec.size,), spec.wide.dtype)
        for rank in range(context.world_size):
            total = self._add_(total, gathered[rank], units[rank], spec, ops)
        mean = ops.reshape(ops.cast(ops.scale_(total, 1.0 / context.world_size), spec.dtype), spec.shape)
        if scale is None:
            return Exchanged(mean, None, state)
        left = ops.finite_or_zero_(self._add_(owed, codes, -unit, spec, ops))
        return Exchanged(mean, None, {"error": ops.reshape(left, spec.shape)})

    def traffic(self, spec: Spec, world_size: int, step: int) -> Traffic:
        _, bins, slots = self._layout(spec)
        return ((Payload(AllGather, bins * slots, "int16"), Payload(AllGather, 1, spec.wide.dtype)),)

    def _layout(self, spec: Spec) -> tuple[int, int, int]:
        """Return elements a bin, number of bins, slots a bin."""
        length = min(self.conv_bin_size if len(spec.shape) > 2 else self.bin_size, spec.size)
        return length, -(-spec.size // length), min(self.slots, length)

    def _encode(self, owed: Array, grad: Array, spec: Spec, ops: ArrayOps) -> tuple[Array, Array]:
        """Return the codes of all slots of all bins, 0 where empty, and the one magnitude."""
        length, bins, slots = self._layout(spec)
        magnitudes = ops.reshape(ops.padded(ops.abs(owed), bins * length), (bins, length))
        maxima = ops.max(magnitudes, axis=1)
        lifted = ops.reshape(ops.padded(ops.abs(owed + grad), bins * length), (bins, length))
        left = ops.flatten(ops.where((lifted >= maxima) & (maxima > 0.0), lifted, -1.0))
        first, codes = ops.arange(bins) * length, []
        for _ in range(slots):
            best = ops.argmax(ops.reshape(left, (bins, length)))
            # Never padding: it is below the largest of its bin, and of bins with nothing left the first is best.
            positions = best + first
            sign = _sign(ops.take(owed, positions), ops)
            codes.append(ops.where(ops.take(left, positions) >= 0.0, (best + 1) * sign, best * 0))
            left = ops.put_(left, positions, -1.0)
        live = ops.sum(ops.cast(maxima != 0.0, spec.wide.dtype))
        unit = ops.sum(maxima / ops.maximum(live, 1.0))
        return ops.cast(ops.flatten(ops.stack(codes)), "int16"), ops.reshape(unit, (1,))

    def _add_(self, total: Array, codes: Array, unit: Array, spec: Spec, ops: ArrayOps) -> Array:
        """Return total + what codes say. An empty slot adds 0 x unit: NaN if some element was not finite."""
        length, bins, slots = self._layout(spec)
        codes = ops.cast(codes, "int64")
        places = ops.abs(codes)
        first = ops.reshape(ops.arange(bins) * length, (1, -1)) + ops.zeros((slots, 1), "int64")
        positions = ops.flatten(first) + ops.maximum(places - 1, 0)
        inside = (ops.max(places) <= length) & (ops.max(positions) < spec.size)
        ops.check(inside, f"A received code is outside its bin of {length} elements.")
        return ops.add_at_(total, positions, ops.cast(_sign(codes, ops), ops.dtype(total)) * unit)


def _sign(x: Array, ops: ArrayOps) -> Array:
    """Return -1, 0 or 1, int64."""
    return ops.cast(x > 0, "int64") - ops.cast(x < 0, "int64")
