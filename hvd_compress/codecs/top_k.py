"""TopK: the elements with the largest magnitudes, and where they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final, get_args

from ..contract import Array, Key, Spec, check_at_least, check_choice, check_fraction
from ..ops import ArrayOps
from .in_one_step import InOneStep
from .positions import from_wire, index_dtype, to_wire
from .selection import (
    above_sampled_threshold,
    alarm,
    chunk_of,
    count_of,
    is_large,
    largest_of_chunks,
)

Selection = Literal["exact", "chunked", "sampled"]


@final
@dataclass(frozen=True, repr=False)
class TopK(InOneStep):
    """Keep the k = ceil(ratio d) largest |x|, as they are, and their positions; C(x) is 0 elsewhere.

    ||x - C(x)||^2 <= (1 - k/d) ||x||^2. A value takes 4 bytes (8 for float64 gradients), its position 1 byte where
    there are up to 256, 2 up to 32768, else 4.

    Args:
        ratio: share of elements that is kept, 0 < ratio <= 1.
        selection: "exact": the k largest; "chunked": the largest of every ceil(1/ratio) consecutive elements, so that
            positions are short; it may miss large elements that are close together; "sampled": those above a threshold
            that a sample of 1 % gives: about the largest, and exact below 2048 elements.
        min_size: tensors with fewer elements, and those with fewer than 2 dimensions, travel dense.

    Raises:
        ConfigurationError: a setting is out of range.

    Source: Stich, Cordonnier, Jaggi 2018 (arXiv:1809.07599); chunks: Chen et al. 2020 (arXiv:2104.11125); thresholds:
    Lin et al. 2018 (arXiv:1712.01887).
    """

    ratio: float = 0.01
    selection: Selection = "exact"
    min_size: int = 1024

    def __post_init__(self) -> None:
        check_fraction(self, "ratio", self.ratio)
        check_choice(self, "selection", self.selection, get_args(Selection))
        check_at_least(self, "min_size", self.min_size, 0)

    def _encode(self, array: Array, ops: ArrayOps, key: Key) -> tuple[Array, ...]:
        spec = Spec(ops.shape(array), ops.dtype(array))
        flat = ops.flatten(ops.cast(array, spec.wide.dtype))
        count, span = self._count(spec), self._span(spec)
        if self.selection == "chunked":
            local = largest_of_chunks(flat, span, ops)
            return to_wire(local, span, ops), ops.take(flat, local + ops.arange(count) * span)
        if self.selection == "exact":
            positions = ops.largest(flat, count)
            return to_wire(positions, span, ops), ops.take(flat, positions)
        positions = above_sampled_threshold(ops.abs(flat), count, key, ops)
        # What is not finite may be among those that were passed over.
        return to_wire(positions, span, ops), ops.take(flat, positions) + alarm(flat, ops)

    def _decode(self, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Array:
        return ops.reshape(self._put_(ops.zeros((spec.size,), spec.dtype), parts, spec, ops), spec.shape)

    def _decode_to_(self, out: Array, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Array:
        return ops.reshape(self._put_(ops.zero_(ops.flatten(out)), parts, spec, ops), ops.shape(out))

    def _put_(self, zeros: Array, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Array:
        return ops.put_(zeros, self.positions(parts, spec, ops), ops.cast(parts[1], spec.dtype))

    def _accumulate_(self, total: Array, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Array:
        values = ops.cast(parts[1], ops.dtype(total))
        flat = ops.add_at_(ops.flatten(total), self.positions(parts, spec, ops), values)
        return ops.reshape(flat, ops.shape(total))

    def _subtract_(self, array: Array, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Array:
        # As in `decode`: what was sent is first rounded to the gradient's element type.
        values = ops.cast(-ops.cast(parts[1], spec.dtype), ops.dtype(array))
        flat = ops.add_at_(ops.flatten(array), self.positions(parts, spec, ops), values)
        return ops.reshape(flat, ops.shape(array))

    def positions(self, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Array:
        span = self._span(spec)
        local = from_wire(parts[0], span, ops)
        if self.selection != "chunked":
            return local
        positions = local + ops.arange(self._count(spec)) * span
        if spec.size % span:
            ops.check(ops.max(positions) < spec.size, f"A received position is outside 0 .. {spec.size - 1}.")
        return positions

    def payload(self, spec: Spec) -> tuple[tuple[int, str], ...]:
        count = self._count(spec)
        return (count, index_dtype(self._span(spec))), (count, spec.wide.dtype)

    def summable(self, spec: Spec) -> bool:
        return False

    @property
    def block_length(self) -> int:
        return chunk_of(self.ratio) if self.selection == "chunked" else 0

    @property
    def whole(self) -> bool:
        return True

    def lossless(self, spec: Spec) -> bool:
        return self._count(spec) == spec.size

    def compresses(self, spec: Spec) -> bool:
        return is_large(spec, self.min_size)

    def _span(self, spec: Spec) -> int:
        """Return how many positions there are to tell apart: in the tensor, or in a chunk."""
        return chunk_of(self.ratio) if self.selection == "chunked" else spec.size

    def _count(self, spec: Spec) -> int:
        if self.selection != "chunked" or spec.size == 0:
            return count_of(self.ratio, spec.size)
        return -(-spec.size // self._span(spec))
