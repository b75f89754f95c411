"""What an exchange will put on the wire, from shapes alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .request import AllGather, AllToAll, Broadcast, Collective, Max, Mean, Sum, Swap
from .spec import DTYPE_BYTES


@dataclass(frozen=True)
class Payload:
    """One request of one round.

    Args:
        kind: of its collective.
        count: elements that a rank hands in.
        dtype: their type.
        apart: it does not travel with others if it is large.
    """

    kind: type[Collective]
    count: int
    dtype: str
    apart: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes that a rank hands to the collective."""
        return self.count * DTYPE_BYTES[self.dtype]


# Collectives that add up numbers; the others move bits, of whatever type.
REDUCTIONS = (Mean, Sum, Max)

# Rounds in order, each a tuple of payloads in order.
Traffic = tuple[tuple[Payload, ...], ...]


def sent_bytes(kind: type[Collective], nbytes: int, world_size: int) -> int:
    """Return the bytes that one worker sends for a collective with `nbytes` handed in per rank.

    W = world_size. Mean, Sum, Max (ring): 2 (W-1)/W n. AllGather: (W-1) n. AllToAll: (W-1)/W n.
    Broadcast: (W-1)/W n, the average over workers. Swap: n, of a rank that has a partner. Rounded up to a whole byte.
    """
    others = world_size - 1
    if kind in REDUCTIONS:
        return -(-2 * others * nbytes // world_size)
    if kind is AllGather:
        return others * nbytes
    if kind in (AllToAll, Broadcast):
        return -(-others * nbytes // world_size)
    if kind is Swap:
        return nbytes if others else 0
    raise TypeError(f"{kind.__name__} is not a collective.")


def traffic_bytes(traffic: Iterable[Iterable[Payload]], world_size: int) -> int:
    """Return the bytes that one worker sends for all payloads of all rounds."""
    return sum(sent_bytes(p.kind, p.nbytes, world_size) for payloads in traffic for p in payloads)
