"""Fusion: all payloads of a round that can travel together do, in one flat buffer.

Numbers that are added up travel with others of their element type. What is only moved travels as bytes if there are
several types: a collective costs more than a copy of what is small.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

from ..contract import (
    DTYPE_BYTES,
    REDUCTIONS,
    SUMMABLE_DTYPES,
    AllGather,
    AllToAll,
    Array,
    Broadcast,
    Collective,
    Max,
    Mean,
    Sum,
    Swap,
)
from ..errors import ConfigurationError, UsageError
from ..ops import ArrayOps


@final
@dataclass(frozen=True)
class Member:
    """One request in a fused collective.

    Args:
        position: in the round.
        shape: of its array.
        dtype: of its array.
    """

    position: int
    shape: tuple[int, ...]
    dtype: str


@final
@dataclass(frozen=True, eq=False)
class Fused:
    """One collective that carries several requests.

    Args:
        label: kind and element types, and the size of what is added up, equal on all ranks: part of the collective's
            name. What changes its size under one name, as where factors take turns, Horovod would negotiate anew.
        request: the request for the whole buffer: 1-D, or (world_size, n) for AllToAll.
        ops: array operations of the buffer.
        members: the requests inside, in order.
        as_bytes: whether the buffer holds their bytes, as uint8.
    """

    label: str
    request: Collective
    ops: ArrayOps
    members: tuple[Member, ...]
    as_bytes: bool = False

    def unpack(self, result: Array) -> list[tuple[int, Array]]:
        """Return (position in the round, result) for every request inside."""
        kind, ops = type(self.request), self.ops
        axis = 1 if kind in (AllGather, AllToAll) else 0
        lead = ops.shape(result)[:axis]
        widths = [_width(kind, m.shape) * (DTYPE_BYTES[m.dtype] if self.as_bytes else 1) for m in self.members]
        pieces = ops.split(result, widths, axis) if len(widths) > 1 else [result]
        found = []
        for member, piece in zip(self.members, pieces, strict=True):
            if self.as_bytes and member.dtype != "uint8":
                piece = ops.from_bytes(ops.flatten(piece), member.dtype)
            shape = (*lead, *(member.shape[1:] if kind is AllToAll else member.shape))
            found.append((member.position, ops.reshape(piece, shape)))
        return found


def fuse(requests: Sequence[tuple[int, Collective, ArrayOps]], apart_bytes: float = 0.0) -> list[Fused]:
    """Return the collectives that carry the given requests of one round: (position, request, array operations).

    Requests for nothing (arrays of no element) are left out: they need no collective. Those that may stay apart do from
    `apart_bytes` on.

    Raises:
        ConfigurationError: an element type that collectives cannot add up is to be summed.
    """
    groups: dict[tuple[object, ...], list[tuple[Member, Collective]]] = {}
    for position, request, ops in requests:
        member = Member(position, ops.shape(request.array), ops.dtype(request.array))
        _check_dtype(request, member.dtype)
        if math.prod(member.shape) == 0:
            continue
        key = (type(request), ops, _route(request), *_alike(request, member, apart_bytes))
        groups.setdefault(key, []).append((member, request))
    return [_pack(members, key[1], apart_bytes) for key, members in groups.items()]  # type: ignore[arg-type]


def empty_result(request: Collective, ops: ArrayOps, world_size: int) -> Array:
    """Return the result of a request for an array of no element."""
    if isinstance(request, AllGather):
        return ops.zeros((world_size, *ops.shape(request.array)), ops.dtype(request.array))
    return request.array


def _pack(group: list[tuple[Member, Collective]], ops: ArrayOps, apart_bytes: float) -> Fused:
    members, first = tuple(member for member, _ in group), group[0][1]
    kind, alone = type(first), len(group) == 1
    dtypes = tuple(dict.fromkeys(member.dtype for member in members))
    as_bytes = len(dtypes) > 1
    flat = [ops.as_bytes(r.array) if as_bytes else ops.flatten(r.array) for _, r in group]
    if kind is AllToAll:
        flat = [ops.reshape(x, (m.shape[0], -1)) for x, m in zip(flat, members, strict=True)]
    buffer = flat[0] if alone else ops.concat(flat, axis=1 if kind is AllToAll else 0)
    request: Collective
    notes = [_route(first)] if _route(first) else []
    if isinstance(first, (Mean, Sum, Max)):
        request = replace(first, array=buffer, donate=first.donate or not alone)
        notes.append(str(ops.shape(buffer)[0]))
    else:
        request = replace(first, array=buffer)
    if _is_apart(first, members[0], apart_bytes):
        notes.append(f"request{members[0].position}")
    return Fused(".".join([kind.__name__.lower(), "+".join(dtypes), *notes]), request, ops, members, as_bytes)


def _alike(request: Collective, member: Member, apart_bytes: float) -> tuple[object, ...]:
    """Return what numbers must have in common to be added up in one buffer; nothing for what is only moved."""
    if not isinstance(request, (Mean, Sum, Max)):
        return ()
    return member.dtype, member.position if _is_apart(request, member, apart_bytes) else None


def _is_apart(request: Collective, member: Member, apart_bytes: float) -> bool:
    nbytes = math.prod(member.shape) * DTYPE_BYTES[member.dtype]
    return isinstance(request, (Mean, Sum, Max)) and request.apart and nbytes >= apart_bytes


def _route(request: Collective) -> str:
    """Return what requests must have in common, besides kind and element type, to travel together."""
    if isinstance(request, Broadcast):
        return f"from{request.root}"
    return request.pairing if isinstance(request, Swap) else ""


def _width(kind: type[Collective], shape: tuple[int, ...]) -> int:
    return math.prod(shape[1:]) if kind is AllToAll else math.prod(shape)


def _check_dtype(request: Collective, dtype: str) -> None:
    if isinstance(request, REDUCTIONS) and dtype not in SUMMABLE_DTYPES:
        raise ConfigurationError(
            f"{type(request).__name__} of {dtype}: collectives add up {', '.join(SUMMABLE_DTYPES)} only; move other "
            "element types with AllToAll and AllGather."
        )
    if not isinstance(request, (*REDUCTIONS, AllGather, AllToAll, Broadcast, Swap)):
        raise UsageError(f"An exchange yielded {type(request).__name__}, which is not a request.")
