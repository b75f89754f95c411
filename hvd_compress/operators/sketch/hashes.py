"""What a family of hash functions does for a count sketch, and how it is found again at the next step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, final

import numpy as np

from ...contract import Array
from ...ops import ArrayOps
from ...ops.pieces import pieces_of

# Elements that a device works on at once: no fewer, in no more pieces.
_AT_ONCE, _PIECES = 2**16, 128


class Hashes(ABC):
    """Buckets h_j(i) and signs s_j(i) of `size` coordinates in `rows` rows of `columns` buckets, on one device.

    Args:
        size: d.
        rows: r, odd.
        columns: c.
        signs: (ceil(r / 8), d), uint8: bit j % 8 of signs[j // 8, i] says whether s_j(i) = -1.
        ops: array operations of the device. Attributes and subclasses have those of its `host`.
    """

    def __init__(self, size: int, rows: int, columns: int, signs: np.ndarray[Any, Any], ops: ArrayOps) -> None:
        self.size, self.rows, self.columns, self.ops, self._caller = size, rows, columns, ops.host, ops
        self._signs = [self.ops.from_numpy(bits) for bits in signs]

    @final
    def sketch(self, x: Array) -> Array:
        """Return the table (r, c) of the 1-D array x: T[j, b] = sum of s_j(i) x_i over the i with h_j(i) = b."""
        return self._caller.off_host(self.table_of(self._caller.on_host(x)))

    @final
    def estimates(self, table: Array, memory: Array | None = None) -> Array:
        """Return for every i the median over j of s_j(i) T[j, h_j(i)]; 1-D memory for them, if any, is donated."""
        on_host = self._caller.on_host
        found = self.medians_of(on_host(table), None if memory is None else on_host(memory))
        return self._caller.off_host(found)

    @abstractmethod
    def table_of(self, x: Array) -> Array:
        """Return what `sketch` does, of arrays of `ops`."""

    @abstractmethod
    def medians_of(self, table: Array, memory: Array | None) -> Array:
        """Return what `estimates` does, of arrays of `ops`."""

    def signs(self, start: int, stop: int, dtype: str) -> list[Array]:
        """Return the signs of coordinates start .. stop - 1, for 8 rows each, as `signed` takes them."""
        words = "int32" if dtype == "float32" else "int64"
        return [self.ops.cast(bits[start:stop], words) for bits in self._signs]

    def signed(self, x: Array, row: int, signs: list[Array]) -> Array:
        """Return s_row(i) x_i for the coordinates that `signs` is for, a new array."""
        return self.ops.flip(x, signs[row // 8], row % 8)

    def pieces(self, unit: int = 1) -> Iterator[tuple[int, int]]:
        """Yield (start, stop) of pieces of the coordinates, all but the last a multiple of `unit` long."""
        if self.ops.piecewise:
            yield from pieces_of(self.size, unit)
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
        return self.ops.by_pieces(lambda start, stop: [part(start, stop)], self.size, unit, outputs, [memory])[0]
