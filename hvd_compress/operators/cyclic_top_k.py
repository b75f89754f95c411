"""CyclicTopK: ranks take turns in choosing which elements all of them send."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, final, get_args

from ..codecs.positions import from_wire, index_dtype, to_wire
from ..codecs.selection import largest_of_chunks
from ..contract import (
    AllGather,
    Array,
    Context,
    Exchange,
    Exchanged,
    Mean,
    Meanwhile,
    Operator,
    Payload,
    Spec,
    State,
    Traffic,
    check_at_least,
    check_choice,
)
from ..ops import ArrayOps
from .blank import blank
from .top_k_shards import TopKShards

Selection = Literal["chunked", "exact"]


@final
@dataclass(frozen=True, repr=False)
class CyclicTopK(Operator):
    """Cyclic local top-k (CLT-k): each rank chooses by its own |p| for one shard of the tensor, all send the chosen.

    I = union over s of largest(|p_l| in shard s), l = (s + t) mod W; sent_i = p_i on I, else 0; mean = mean_i sent_i.

    Two rounds: an allgather of the chosen positions, an allreduce of the values there. Neither grows with W, and all
    ranks send the same elements. Shards are led in turn: in W steps every rank leads every shard once. For the same I
    it is linear: CLT of the workers' gradients has the mean of CLT of each.

    The leader of a shard cannot see that another rank's gradient is not finite where nothing is sent from. So every
    rank adds 0 x (sum of p) to its values: 0, or NaN where p, or that sum, is not finite. It costs no byte.

    Args:
        chunk: elements of a chunk, of which one is sent, >= 1; 1 travels dense.
        selection: "chunked": the largest of every `chunk` consecutive elements, found in one pass, and positions in a
            chunk take one byte up to chunks of 256. "exact": the ceil(k/n) largest of each of the n shards that have
            elements, for k = ceil(d/chunk): the top k of each shard's share, slower, positions of up to four bytes.
        min_size: tensors with fewer elements travel dense.

    Raises:
        ConfigurationError: a setting is out of range.

    Source: Chen et al. 2020 (arXiv:2104.11125), Algorithm 1 and its ring form.
    """

    chunk: int = 64
    selection: Selection = "chunked"
    min_size: int = 1024

    def __post_init__(self) -> None:
        check_at_least(self, "chunk", self.chunk, 1)
        check_choice(self, "selection", self.selection, get_args(Selection))
        check_at_least(self, "min_size", self.min_size, 0)

    def compresses(self, spec: Spec) -> bool:
        return self.chunk > 1 and spec.size >= self.min_size

    @property
    def block_length(self) -> int:
        return self.chunk if self.selection == "chunked" else 0

    def exchange(self, grad: Array, state: State, context: Context) -> Exchange:
        ops, spec, shards = context.ops, context.spec, self._shards(context.spec, context.world_size)
        flat = ops.flatten(ops.cast(grad, spec.wide.dtype))
        own = (context.rank - context.step) % context.world_size
        chosen = self._chosen(flat, own, shards, ops)
        gathered, alarm = yield [AllGather(chosen), Meanwhile(lambda: ops.sum(flat) * 0.0)]
        positions = self._positions(gathered, context.step % context.world_size, shards, ops)
        values = ops.take(flat, positions) + alarm

        def rest() -> Array | None:
            return ops.reshape(ops.put_(flat, positions, 0.0), spec.shape) if context.feedback else None

        average, unsent = yield [Mean(values, donate=True), Meanwhile(rest)]
        mean = ops.put_(blank(context, spec.dtype, flat), positions, ops.cast(average, spec.dtype))
        return Exchanged(ops.reshape(mean, spec.shape), unsent, state, positions)

    def traffic(self, spec: Spec, world_size: int, step: int) -> Traffic:
        shards = self._shards(spec, world_size)
        indices = Payload(AllGather, shards.slots, index_dtype(shards.group))
        return ((indices,), (Payload(Mean, shards.total, spec.wide.dtype),))

    def _shards(self, spec: Spec, world_size: int) -> TopKShards:
        make = TopKShards.of_chunks if self.selection == "chunked" else TopKShards.of_ranks
        return make(spec.size, self.chunk, world_size)

    def _chosen(self, flat: Array, shard: Any, shards: TopKShards, ops: ArrayOps) -> Array:
        """Return what `_largest` does, as it travels."""

        def work(ops: ArrayOps, arrays: Sequence[Array], key: Sequence[Any]) -> Sequence[Array]:
            return [to_wire(self._largest(arrays[0], arrays[1], shards, ops), shards.group, ops)]

        return ops.at_once(work, [flat, shard], [((shards.slots,), index_dtype(shards.group))])[0]

    def _largest(self, flat: Array, shard: Any, shards: TopKShards, ops: ArrayOps) -> Array:
        """Return the positions, within their groups, of what the leader of a shard picks; `shards.slots` of them."""
        length, start = shards.length, shard * shards.length
        window = ops.window(flat, start, length)
        if self.selection == "chunked":
            # Zeros beyond the end of the tensor are the last of their chunk, of equal numbers the first is chosen.
            return largest_of_chunks(window, shards.group, ops)
        sizes = ops.abs(window)
        if shards.size < length * shards.world_size:
            # What lies beyond the end of the tensor is never chosen before anything else.
            sizes = ops.where(ops.arange(length) < shards.size - start, sizes, -1.0)
        return ops.top_k(sizes, shards.picks)

    @staticmethod
    def _positions(gathered: Array, shift: Any, shards: TopKShards, ops: ArrayOps) -> Array:
        """Return the flat positions of all that was chosen, in the order of shards; row (s + shift) mod W has s's."""
        ordered = ops.take(gathered, (ops.arange(shards.world_size) + shift) % shards.world_size)
        local = from_wire(ops.flatten(ordered)[: shards.total], shards.group, ops)
        starts = ops.reshape(ops.arange(shards.groups) * shards.group, (-1, 1)) + ops.zeros((1, shards.picks), "int64")
        positions = ops.flatten(starts)[: shards.total] + local
        if shards.size % shards.group:
            ops.check(ops.max(positions) < shards.size, "A position that was received is beyond the end of the tensor.")
        return positions
