"""What a family of hash functions does for a count sketch, and how it is found again at the next step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ...contract import Array
from ...ops import ArrayOps
from ...ops.base import PIECE, pieces_of

# Elements that a device works on at once: no fewer, in no more pieces.
_AT_ONCE, _PIECES = 2**16, 128


class Hashes(ABC):
    """Buckets h_j(i) and signs s_j(i) of `size` coordinates in `rows` rows of `columns` buckets, on one device.

    Args:
        size: d.
        rows: r, odd.
        columns: c.
        signs: (ceil(r / 8), d), uint8: bit j % 8 of signs[j // 8, i] says whether s_j(i) = -1.
        ops: array operations of the device.
    """

    def __init__(self, size: int, rows: int, columns: int, signs: np.ndarray[Any, Any], ops: ArrayOps) -> None:
        self.size, self.rows, self.columns, self.ops = size, rows, columns, ops
        self._signs = [ops.from_numpy(bits) for bits in signs]

    @abstractmethod
    def sketch(self, x: Array) -> Array:
        """Return the table (r, c) of the 1-D array x: T[j, b] = sum of s_j(i) x_i over the i with h_j(i) = b."""

    @abstractmethod
    def estimates(self, table: Array, memory: Array | None = None) -> Array:
        """Return for every i the median over j of s_j(i) T[j, h_j(i)]; 1-D memory for them, if any, is donated."""

    def signed(self, x: Array, row: int, start: int, stop: int) -> Array:
        """Return s_row(i) x_(i - start) for i = start .. stop - 1, a new array."""
        return self.ops.flip(x, self._signs[row // 8][start:stop], row % 8)

    def pieces(self, unit: int = 1) -> Iterator[tuple[int, int]]:
        """Yield (start, stop) of pieces of the coordinates, all but the last a multiple of `unit` long.

        On a processor, where a unit does not fit into its cache, pieces are smaller and lie anywhere.
        """
        if self.ops.piecewise:
            yield from pieces_of(self.size, _in_cache(unit))
            return
        wanted = max(_AT_ONCE, self.size // _PIECES)
        length = max(1, wanted // unit) * unit
        for start in range(0, self.size, length):
            yield start, min(start + length, self.size)

    def joined(self, part: Callable[[int, int], Array], unit: int, dtype: str, memory: Array | None) -> Array:
        """Return what `part` makes of every piece, joined; in `memory` where there is some."""
        if not self.ops.piecewise:
            return self.ops.concat([part(start, stop) for start, stop in self.pieces(unit)])
        outputs = [(self.size, dtype)]
        return self.ops.by_pieces(
            lambda start, stop: [part(start, stop)], self.size, _in_cache(unit), outputs, [memory]
        )[0]


def _in_cache(unit: int) -> int:
    return unit if unit <= PIECE else 1
