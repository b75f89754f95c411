"""Rotation hashing: whole blocks of coordinates are added to the table, each turned by a random offset."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import numpy as np

from ...contract import Array
from ...ops import ArrayOps, random_generator
from ...ops.median import median
from ...ops.pieces import PIECE
from .hashes import Hashes

# Blocks of at least so many elements are moved as slices, smaller ones many at once through an index.
_SLICE = 4096


@final
class RotationHashes(Hashes):
    """h_j(b c + i) = (i + t_j(b)) mod c for i < c: block b of c consecutive coordinates, turned by t_j(b).

    The t_j(b) are independent and uniform in 0 .. c - 1, signs independent. Two coordinates of one block never meet.
    Two of different blocks meet where t_j(b) - t_j(b') has one certain value mod c: with probability 1/c, exactly. The
    estimate of x_i in row j is x_i + s_j(i) sum of s_j(l) x_l over the l != i in i's bucket; signs make the mean of
    the sum 0 and that of its square sum of x_l^2 P(l meets i) <= ||x||^2 / c. Pairwise collisions are all that this
    bound asks of buckets, so that it is that of fully random ones, or better.

    Only d/c offsets a row are kept, beside a byte of signs per coordinate for 8 rows: what hashes that repeat over
    blocks are for comes for free. Sketching is adding slices.
    """

    def __init__(self, size: int, rows: int, columns: int, seed: int, ops: ArrayOps) -> None:
        draw = random_generator(("count sketch", "rotation", seed, size, rows, columns))
        offsets = draw.integers(0, columns, (rows, -(-size // columns)))
        super().__init__(size, rows, columns, draw.integers(0, 256, (-(-rows // 8), size), np.uint8), ops)
        self._turns = offsets.tolist()
        self._sliced = columns >= _SLICE
        # Slices may be of parts of blocks, where whole ones are too long for a processor's cache.
        self._unit = 1 if self._sliced and self.ops.piecewise and columns > PIECE else columns
        self._offsets = [] if self._sliced else [self.ops.from_numpy(row) for row in offsets]
        self._all_offsets = self.ops.from_numpy(offsets)

    def table_of(self, x: Array) -> Array:
        ops, c = self.ops, self.columns
        at_once = ops.turned_sums(x, self._signs, self._all_offsets, c)
        if at_once is not None:
            return at_once
        table = [ops.zeros((c,), ops.dtype(x)) for _ in range(self.rows)]
        for start, stop in self.pieces(self._unit):
            signs = self.signs(start, stop, ops.dtype(x))
            for row, turns in enumerate(self._turns):
                signed = self.signed(x[start:stop], row, signs)
                if self._sliced:
                    for b, first, last in self._blocks(start, stop):
                        place = (first - b * c + turns[b]) % c
                        table[row] = ops.add_around_(table[row], place, signed[first - start : last - start])
                else:
                    table[row] = ops.add_(table[row], self._turned_sum(signed, row, start // c, -(-stop // c)))
        return ops.stack(table)

    def _blocks(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield, for every block that coordinates start .. stop - 1 are in, which one it is and (start, stop) there."""
        c = self.columns
        for b in range(start // c, -(-stop // c)):
            yield b, max(start, b * c), min(stop, (b + 1) * c)

    def _turned_sum(self, blocks: Array, row: int, first: int, last: int) -> Array:
        """Return the sum of blocks first .. last - 1, the last of which may be shorter, turned by a row's offsets."""
        ops, c = self.ops, self.columns
        blocks = ops.padded(blocks, (last - first) * c)
        twice = ops.concat([ops.reshape(blocks, (last - first, c))] * 2, axis=1)
        starts = ops.arange(last - first) * (2 * c) + c - self._offsets[row][first:last]
        turned = ops.take(ops.flatten(twice), self._runs(starts))
        return ops.flatten(ops.sum(ops.reshape(turned, (last - first, c)), axis=0))

    def medians_of(self, table: Array, memory: Array | None) -> Array:
        ops, c = self.ops, self.columns
        at_once = ops.turned_medians(table, self._signs, self._all_offsets, memory)
        if at_once is not None:
            return at_once
        twice = [ops.concat([table[row], table[row]]) for row in range(self.rows)]

        def turned(row: int, start: int, stop: int) -> Array:
            if not self._sliced:
                return ops.take(twice[row], self._runs(self._offsets[row][start // c : -(-stop // c)]))[: stop - start]
            places = [
                (first - b * c + self._turns[row][b], last - first) for b, first, last in self._blocks(start, stop)
            ]
            slices = [twice[row][place : place + length] for place, length in places]
            return slices[0] if len(slices) == 1 else ops.concat(slices)

        def part(start: int, stop: int) -> Array:
            signs = self.signs(start, stop, ops.dtype(table))
            rows = [self.signed(turned(row, start, stop), row, signs) for row in range(self.rows)]
            return median(rows, ops)

        return self.joined(part, self._unit, ops.dtype(table), memory)

    def _runs(self, starts: Array) -> Array:
        """Return the positions start, start + 1, ..., start + c - 1 for every start, 1-D."""
        ops = self.ops
        return ops.flatten(ops.reshape(starts, (-1, 1)) + ops.arange(self.columns))
