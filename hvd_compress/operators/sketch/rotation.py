"""Rotation hashing: whole blocks of coordinates are added to the table, each turned by a random offset."""

from __future__ import annotations

from typing import final

import numpy as np

from ...contract import Array
from ...ops import ArrayOps, random_generator
from .hashes import Hashes
from .median import median

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
        self._offsets = [] if self._sliced else [ops.from_numpy(row) for row in offsets]

    def sketch(self, x: Array) -> Array:
        ops, c = self.ops, self.columns
        table = [ops.zeros((c,), ops.dtype(x)) for _ in range(self.rows)]
        for start, stop in self.pieces(c):
            first, last = start // c, -(-stop // c)
            for row in range(self.rows):
                signed = ops.padded(self.signed(x[start:stop], row, start, stop), (last - first) * c)
                if self._sliced:
                    for b in range(first, last):
                        block = signed[(b - first) * c : (b - first + 1) * c]
                        cut = c - self._turns[row][b]
                        table[row] = ops.add_(table[row], ops.concat([block[cut:], block[:cut]]))
                else:
                    table[row] = ops.add_(table[row], self._turned_sum(signed, row, first, last))
        return ops.stack(table)

    def _turned_sum(self, blocks: Array, row: int, first: int, last: int) -> Array:
        """Return the sum of blocks first .. last - 1, each turned by its offset in a row."""
        ops, c = self.ops, self.columns
        twice = ops.concat([ops.reshape(blocks, (last - first, c))] * 2, axis=1)
        starts = ops.arange(last - first) * (2 * c) + c - self._offsets[row][first:last]
        turned = ops.take(ops.flatten(twice), self._runs(starts))
        return ops.flatten(ops.sum(ops.reshape(turned, (last - first, c)), axis=0))

    def estimates(self, table: Array) -> Array:
        ops, c = self.ops, self.columns
        twice = [ops.concat([table[row], table[row]]) for row in range(self.rows)]
        found = []
        for start, stop in self.pieces(c):
            first, last = start // c, -(-stop // c)
            values = []
            for row in range(self.rows):
                if self._sliced:
                    turns = self._turns[row][first:last]
                    x = ops.concat([twice[row][turn : turn + c] for turn in turns])
                else:
                    x = ops.take(twice[row], self._runs(self._offsets[row][first:last]))
                values.append(self.signed(x[: stop - start], row, start, stop))
            found.append(median(values, ops))
        return ops.concat(found)

    def _runs(self, starts: Array) -> Array:
        """Return the positions start, start + 1, ..., start + c - 1 for every start, 1-D."""
        ops = self.ops
        return ops.flatten(ops.reshape(starts, (-1, 1)) + ops.arange(self.columns))
