"""TopKShards: how a flat tensor is cut into shards, and shards into groups that so many elements are picked from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class TopKShards:
    """Consecutive groups of `group` elements; `groups_a_shard` consecutive groups are a shard; W shards in all.

    The last group may be shorter, and the last shards shorter or empty.

    Args:
        size: elements of the tensor, >= 1.
        group: elements of a group, 1 <= group <= size.
        groups_a_shard: groups of a full shard.
        picks: elements picked from a full group; a shorter one gives at most all that it has.
        world_size: number of shards.
    """

    size: int
    group: int
    groups_a_shard: int
    picks: int
    world_size: int

    @classmethod
    def of_chunks(cls, size: int, chunk: int, world_size: int) -> TopKShards:
        """Return shards of ceil(n/W) of the n chunks of `chunk` elements, one element picked from each."""
        group = min(chunk, size)
        return cls(size, group, _ceil(_ceil(size, group), world_size), 1, world_size)

    @classmethod
    def of_ranks(cls, size: int, chunk: int, world_size: int) -> TopKShards:
        """Return shards of ceil(d/W) elements, an equal share of the top ceil(d/chunk) picked from each."""
        group = _ceil(size, world_size)
        return cls(size, group, 1, _ceil(_ceil(size, chunk), _ceil(size, group)), world_size)

    @property
    def groups(self) -> int:
        """Number of groups."""
        return _ceil(self.size, self.group)

    @property
    def slots(self) -> int:
        """Positions that every rank hands in, padded."""
        return self.groups_a_shard * self.picks

    @property
    def total(self) -> int:
        """Elements picked in all."""
        last = self.size - (self.groups - 1) * self.group
        return (self.groups - 1) * self.picks + min(self.picks, last)

    @property
    def length(self) -> int:
        """Elements of a full shard."""
        return self.groups_a_shard * self.group


def _ceil(count: int, parts: int) -> int:
    return -(-count // parts)
