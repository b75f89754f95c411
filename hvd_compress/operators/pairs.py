"""Pairs: how any number of ranks is paired, so that each has a part in every merge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Pairs:
    """Recursive doubling over m ranks, the largest power of two <= W; each other rank r is the guest of rank r - m.

    Args:
        rank: this one.
        world_size: W.
    """

    rank: int
    world_size: int

    @property
    def rounds(self) -> int:
        """log2 m."""
        return self.world_size.bit_length() - 1

    @property
    def guests(self) -> int:
        """Number of ranks >= m."""
        return self.world_size - (1 << self.rounds)

    @property
    def is_guest(self) -> bool:
        """Whether another rank has a part in the merges for this one."""
        return self.rank >= 1 << self.rounds

    @property
    def is_host(self) -> bool:
        """Whether this rank has a guest."""
        return self.rank < self.guests

    @property
    def host_or_guest(self) -> int:
        """The rank that this one is host or guest of; itself if neither."""
        power = 1 << self.rounds
        if self.is_guest:
            return self.rank - power
        return self.rank + power if self.is_host else self.rank

    def partner(self, j: int) -> int:
        """Return the rank to merge with in round j; a guest's is itself."""
        return self.rank if self.is_guest else self.rank ^ (1 << j)
