"""Pieces: work on as much of an array at once as stays in a processor's cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .array import Array, Cut
    from .base import Part

# Elements that a processor works on at once: few enough that they stay in its cache from one operation to the next, and
# that memory for what lies between is used again instead of being asked of the system.
PIECE = 2**18


def pieces_of(size: int, unit: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of pieces of about `PIECE` elements, all but the last a multiple of `unit` long."""
    length = max(1, PIECE // unit) * unit
    for start in range(0, size, length):
        yield start, min(start + length, size)


def put_in_place(x: Array, cut: Cut, unit: int) -> None:
    """Do `put_by_pieces_` to 1-D x."""
    for start, stop in pieces_of(x.shape[0], unit):
        x[start:stop] = cut(start, stop)


def change_in_place(x: Array, sizes: Sequence[int], change: Callable[[int, Array], Array]) -> Array:
    """Do `change_parts_` to 1-D x; only what was made elsewhere is copied."""
    start = 0
    for i, size in enumerate(sizes):
        part = x[start : start + size]
        made = change(i, part)
        if made is not part:
            part[:] = made
        start += size
    return x


def fill_by_pieces(part: Part, size: int, unit: int, outputs: Sequence[Array]) -> list[Array]:
    """Return the 1-D outputs, filled one after the other with what `part` makes of every piece."""
    filled = [0] * len(outputs)
    for start, stop in pieces_of(size, unit):
        for i, piece in enumerate(part(start, stop)):
            end = filled[i] + piece.shape[0]
            outputs[i][filled[i] : end] = piece
            filled[i] = end
    return list(outputs)
