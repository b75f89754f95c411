"""Positions on the wire: the smallest integers that hold them, and their validation on arrival."""

from __future__ import annotations

from ..contract import Array
from ..ops import ArrayOps


def index_dtype(size: int) -> str:
    """Return the smallest element type of the wire that holds the positions 0 .. size - 1."""
    if size <= 256:
        return "uint8"
    return "int16" if size <= 32768 else "int32"


def to_wire(positions: Array, size: int, ops: ArrayOps) -> Array:
    """Return positions, each in 0 .. size - 1, as they travel."""
    return ops.cast(positions, index_dtype(size))


def from_wire(received: Array, size: int, ops: ArrayOps) -> Array:
    """Return received positions as int64; one outside 0 .. size - 1 raises CorruptPayloadError."""
    positions = ops.cast(received, "int64")
    if 0 not in ops.shape(positions):
        inside = (ops.max(positions) < size) & (ops.max(-positions) <= 0)
        ops.check(inside, f"A received position is outside 0 .. {size - 1}.")
    return positions
