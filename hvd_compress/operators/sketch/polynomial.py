"""Polynomial hashing: buckets and signs of every coordinate, from random polynomials over a prime field."""

from __future__ import annotations

from typing import final

import numpy as np

from ...contract import Array
from ...errors import ConfigurationError
from ...ops import ArrayOps, random_generator
from ...ops.median import median
from .field import PRIME, polynomial
from .hashes import Hashes

_CHUNK = 2**20


@final
class PolynomialHashes(Hashes):
    """h_j(i) = ((a i + b) mod p) mod c; s_j(i) = +1 where a random cubic of i mod p is even; p = 2^31 - 1.

    A random polynomial of degree n takes independent, uniform values mod p at any n + 1 different points below p. So
    buckets are pairwise independent but for "mod c": two coordinates meet with probability at most
    1/c + c/(4 p^2). Signs are 4-wise independent with a mean of 1/p: p has one even residue more. The coordinates need
    d < p; products stay below 2^62, in int64.

    A bucket takes 4 bytes a coordinate and row. Adding into buckets is a scatter, slow on most devices.

    Raises:
        ConfigurationError: d >= 2^31 - 1.
    """

    def __init__(self, size: int, rows: int, columns: int, seed: int, ops: ArrayOps) -> None:
        lines, cubics = coefficients(rows, seed)
        check_size(size)
        buckets = np.empty((rows, size), np.int32)
        signs = np.zeros((-(-rows // 8), size), np.uint8)
        for start in range(0, size, _CHUNK):
            places = np.arange(start, min(start + _CHUNK, size), dtype=np.int64)
            part = slice(start, start + len(places))
            for row in range(rows):
                buckets[row, part] = bucket_of(places, lines[row], columns)
                signs[row // 8, part] |= (sign_bit_of(places, cubics[row]) << (row % 8)).astype(np.uint8)
        super().__init__(size, rows, columns, signs, ops)
        self._buckets = [self.ops.from_numpy(row) for row in buckets]

    def table_of(self, x: Array) -> Array:
        ops = self.ops
        table = [ops.zeros((self.columns,), ops.dtype(x)) for _ in range(self.rows)]
        for start, stop in self.pieces():
            signs = self.signs(start, stop, ops.dtype(x))
            for row in range(self.rows):
                signed = self.signed(x[start:stop], row, signs)
                table[row] = ops.add_at_(table[row], self._places(row, start, stop), signed)
        return ops.stack(table)

    def medians_of(self, table: Array, memory: Array | None) -> Array:
        def part(start: int, stop: int) -> Array:
            values = [self.ops.take(table[row], self._places(row, start, stop)) for row in range(self.rows)]
            signs = self.signs(start, stop, self.ops.dtype(table))
            return median([self.signed(x, row, signs) for row, x in enumerate(values)], self.ops)

        return self.joined(part, 1, self.ops.dtype(table), memory)

    def _places(self, row: int, start: int, stop: int) -> Array:
        return self.ops.cast(self._buckets[row][start:stop], "int64")


def check_size(size: int) -> None:
    """Raise unless the polynomials tell so many coordinates apart."""
    if size >= PRIME:
        raise ConfigurationError(
            f"CountSketch(hashing='polynomial') tells {PRIME - 1} coordinates apart, a gradient has size={size!r}; use "
            "hashing='rotation'."
        )


def coefficients(rows: int, seed: int) -> tuple[list[list[int]], list[list[int]]]:
    """Return for every row the two coefficients of its buckets and the four of its signs, equal on all ranks."""
    drawn = random_generator(("count sketch", "polynomial", seed)).integers(0, PRIME, (rows, 6)).tolist()
    return [row[:2] for row in drawn], [row[2:] for row in drawn]


def bucket_of(places: Array, line: list[int], columns: int) -> Array:
    """Return the buckets of int64 coordinates."""
    return polynomial(places, line) % columns


def sign_bit_of(places: Array, cubic: list[int]) -> Array:
    """Return 1 where the sign of an int64 coordinate is -1, else 0."""
    return polynomial(places, cubic) % 2
