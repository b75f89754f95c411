"""Fusion: all payloads of a round that can travel together do, in one flat buffer per kind and element type."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

from ..contract import SUMMABLE_DTYPES, AllGather, AllToAll, Array, Broadcast, Collective, Max, Mean, Sum, Swap
from ..errors import ConfigurationError, UsageError
from ..ops import ArrayOps


@final
@dataclass(frozen=True, eq=False)
class Fused:
    """One collective that carries several requests.

    Args:
        label: kind and element type, equal on all ranks, part of the collective's name.
        request: the request for the whole buffer: 1-D, or (world_size, n) for AllToAll.
        ops: array operations of the buffer.
        members: position in the round and shape of every request inside, in order.
    """

    label: str
    request: Collective
    ops: ArrayOps
    members: tuple[tuple[int, tuple[int, ...]], ...]

    def unpack(self, result: Array) -> list[tuple[int, Array]]:
        """Return (position in the round, result) for every request inside."""
        kind, ops = type(self.request), self.ops
        axis = 1 if kind in (AllGather, AllToAll) else 0
        lead = ops.shape(result)[:axis]
        sizes = [_width(kind, shape) for _, shape in self.members]
        pieces = ops.split(result, sizes, axis) if len(sizes) > 1 else [result]
        shapes = ((i, (*lead, *(shape[1:] if kind is AllToAll else shape))) for i, shape in self.members)
        return [(i, ops.reshape(piece, shape)) for piece, (i, shape) in zip(pieces, shapes, strict=True)]


def fuse(requests: Sequence[tuple[int, Collective, ArrayOps]]) -> list[Fused]:
    """Return the collectives that carry the given requests of one round: (position, request, array operations).

    Requests for nothing (arrays of no element) are left out: they need no collective.

    Raises:
        ConfigurationError: an element type that collectives cannot add up is to be summed.
    """
    groups: dict[tuple[object, ...], list[tuple[int, Collective]]] = {}
    for position, request, ops in requests:
        dtype = ops.dtype(request.array)
        _check_dtype(request, dtype)
        if math.prod(ops.shape(request.array)) == 0:
            continue
        groups.setdefault((type(request), dtype, _route(request), ops), []).append((position, request))
    return [_pack(members, key[1], key[3]) for key, members in groups.items()]  # type: ignore[arg-type]


def empty_result(request: Collective, ops: ArrayOps, world_size: int) -> Array:
    """Return the result of a request for an array of no element."""
    if isinstance(request, AllGather):
        return ops.zeros((world_size, *ops.shape(request.array)), ops.dtype(request.array))
    return request.array


def _pack(members: list[tuple[int, Collective]], dtype: str, ops: ArrayOps) -> Fused:
    first = members[0][1]
    kind = type(first)
    shapes = tuple((position, ops.shape(request.array)) for position, request in members)
    if kind is AllToAll:
        flat = [ops.reshape(r.array, (ops.shape(r.array)[0], -1)) for _, r in members]
    else:
        flat = [ops.flatten(r.array) for _, r in members]
    alone = len(flat) == 1
    buffer = flat[0] if alone else ops.concat(flat, axis=1 if kind is AllToAll else 0)
    request: Collective
    if isinstance(first, (Mean, Sum, Max)):
        request = replace(first, array=buffer, donate=first.donate or not alone)
    else:
        request = replace(first, array=buffer)
    route = f".{_route(first)}" if _route(first) else ""
    return Fused(f"{kind.__name__.lower()}.{dtype}{route}", request, ops, shapes)


def _route(request: Collective) -> str:
    """Return what requests must have in common, besides kind and element type, to travel together."""
    if isinstance(request, Broadcast):
        return f"from{request.root}"
    return request.pairing if isinstance(request, Swap) else ""


def _width(kind: type[Collective], shape: tuple[int, ...]) -> int:
    return math.prod(shape[1:]) if kind is AllToAll else math.prod(shape)


def _check_dtype(request: Collective, dtype: str) -> None:
    if isinstance(request, (Mean, Sum, Max)) and dtype not in SUMMABLE_DTYPES:
        raise ConfigurationError(
            f"{type(request).__name__} of {dtype}: collectives add up {', '.join(SUMMABLE_DTYPES)} only; move other "
            "element types with AllToAll and AllGather."
        )
    if not isinstance(request, (Mean, Sum, Max, AllGather, AllToAll, Broadcast, Swap)):
        raise UsageError(f"An exchange yielded {type(request).__name__}, which is not a request.")
