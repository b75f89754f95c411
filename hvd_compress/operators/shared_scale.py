"""SharedScale: all workers round to one grid, so that an allreduce can add up what they send."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from ..codecs.rounding import (
    ROW,
    bucket_count,
    check_levels,
    clipping_bound,
    level_codes,
    normalised,
)
from ..contract import (
    Array,
    Context,
    Exchange,
    Exchanged,
    Max,
    Meanwhile,
    Operator,
    Payload,
    Spec,
    State,
    Sum,
    Traffic,
    check_at_least,
    check_finite,
)
from ..ops import ArrayOps, Cut
from ..ops.codes import in_buckets, restorer


@final
@dataclass(frozen=True, repr=False)
class SharedScale(Operator):
    """Agree on m = max over workers of max|g_i| per bucket; mean = m/(s W) sum_i floor(s g_i / m + u_i).

    QSGD with the max norm, or TernGrad (levels=1, bucket=0, clip=2.5), that a plain allreduce carries: two rounds, Max
    of one number a bucket and Sum of int32. A worker's number, s + level with sign, takes a field of b =
    bit_length(2 s W) bits, which the sum of W of them does not leave, and floor(31 / b) fields make one int32. Bytes
    grow with log W, and every worker does the same work. Unbiased with clip = 0; the only loss is each worker's own.

    Args:
        levels: s, 1 to 127.
        bucket: consecutive elements that share m, >= 1; 0 for all of the gradient.
        clip: cut the gradient at so many of its standard deviations first, as `TernGrad` does; 0 does not clip.

    Raises:
        ConfigurationError: a setting is out of range.

    Source: Wen et al. 2017 (arXiv:1705.07878), section 3.2, for the shared scale; Alistarh et al. 2017
    (arXiv:1610.02132) for the rounding.
    """

    levels: int = 7
    bucket: int = 512
    clip: float = 0.0

    def __post_init__(self) -> None:
        check_levels(self, self.levels)
        check_at_least(self, "bucket", self.bucket, 0)
        check_finite(self, "clip", self.clip, 0.0)

    def exchange(self, grad: Array, state: State, context: Context) -> Exchange:
        ops, spec, world, levels = context.ops, context.spec, context.world_size, self.levels
        flat = ops.cast(ops.flatten(grad), spec.wide.dtype)
        cut = self._cut(flat, ops)
        # A maximum may pass over a NaN; it does not pass over an infinity.
        largest = self._maxima(cut, spec, ops)
        (scale,) = yield [Max(ops.where(largest < math.inf, largest, math.inf), donate=True)]
        thresholds = ops.thresholds(spec.wide.dtype, (context.name, context.step, context.rank))

        def coded(start: int, stop: int) -> Sequence[Array]:
            own = scale[start // self.bucket : -(-stop // self.bucket)] if self.bucket else scale
            shares, _ = normalised(in_buckets(cut(start, stop), self.bucket, ops), ops.reshape(own, (-1, 1)), ops)
            random = in_buckets(thresholds(start, stop), self.bucket, ops)
            rounded = level_codes(shares, random, levels, ops)
            return (ops.cast(ops.flatten(rounded)[: stop - start], "int32"),)

        unit = math.lcm(8, self.bucket or ROW)
        (codes,) = ops.by_pieces(coded, spec.size, unit, [(spec.size, "int32")])
        steps = scale / levels

        def rest() -> Array | None:
            if not context.feedback:
                return None
            own = restorer(lambda start, stop: codes[start:stop], steps, spec.wide.dtype, self.bucket, levels, ops)
            return ops.add_by_pieces_(ops.reshape(flat, spec.shape), own, unit, -1.0)

        total, unsent = yield [Sum(packed_fields(codes, levels, world, ops), donate=True), Meanwhile(rest)]
        sums = unpacked_fields(total, levels, world, spec.size, ops)
        decoder = restorer(lambda a, b: sums[a:b], steps / world, spec.dtype, self.bucket, levels * world, ops)
        output = (spec.size, spec.dtype)
        (mean,) = ops.by_pieces(lambda a, b: (decoder(a, b),), spec.size, unit, [output])
        return Exchanged(ops.reshape(mean, spec.shape), unsent, state)

    def _cut(self, flat: Array, ops: ArrayOps) -> Cut:
        """Return what gives numbers start .. stop - 1 of the gradient, clipped."""
        if not self.clip or ops.shape(flat)[0] < 2:
            return lambda start, stop: flat[start:stop]
        bound = clipping_bound(flat, self.clip, ops)
        return lambda start, stop: ops.maximum(ops.minimum(flat[start:stop], bound), -bound)

    def _maxima(self, cut: Cut, spec: Spec, ops: ArrayOps) -> Array:
        """Return the largest absolute value of every bucket."""
        width = self.bucket or ROW

        def part(start: int, stop: int) -> Sequence[Array]:
            return (ops.flatten(ops.row_maxima(in_buckets(cut(start, stop), width, ops))),)

        (found,) = ops.by_pieces(part, spec.size, width, [(bucket_count(spec.size, width), spec.wide.dtype)])
        return found if self.bucket or spec.size == 0 else ops.reshape(ops.max(found), (1,))

    def traffic(self, spec: Spec, world_size: int, step: int) -> Traffic:
        words = -(-spec.size // fields(self.levels, world_size)[1])
        scales = Payload(Max, bucket_count(spec.size, self.bucket), spec.wide.dtype)
        return ((scales,), (Payload(Sum, words, "int32"),))


def fields(levels: int, world_size: int) -> tuple[int, int]:
    """Return the bits of a field that holds the sum of W numbers up to 2 s, and how many fields an int32 holds."""
    bits = (2 * levels * world_size).bit_length()
    return bits, 31 // bits


def packed_fields(codes: Array, levels: int, world_size: int, ops: ArrayOps) -> Array:
    """Return numbers from 0 to 2 s as int32 words; field j of all words holds the j-th piece of the numbers."""
    bits, count = fields(levels, world_size)
    length = -(-ops.shape(codes)[0] // count)
    pieces = ops.split(ops.padded(codes, count * length), [length] * count)
    words = ops.copy(pieces[0])
    for j, piece in enumerate(pieces[1:], start=1):
        words = ops.add_(words, piece, 2 ** (bits * j))
    return words


def unpacked_fields(words: Array, levels: int, world_size: int, size: int, ops: ArrayOps) -> Array:
    """Return the sums of W numbers, `size` of them, that summed words hold."""
    bits, count = fields(levels, world_size)
    pieces = [ops.bit_field(words, bits * j, bits) for j in range(count)]
    return ops.concat(pieces)[:size]
