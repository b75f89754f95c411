"""Array operations of NumPy: the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import CorruptPayloadError
from . import aligned
from .array import Array, Cut
from .base import ArrayOps
from .bit_fields import WORD_LENGTHS, gathered, spread
from .largest import by_threshold, of_top
from .pieces import change_in_place, pieces_of
from .random import ShortStream
from .thin_products_numpy import FEW, product_with_rows, put_product, subtract_product


def _bfloat16_bits(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the bits of 1-D float32 x, rounded to the nearest bfloat16, ties to even."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    rounded = bits >> 16
    rounded &= 1
    rounded += 0x7FFF
    rounded += bits
    rounded >>= 16
    found = rounded.astype(np.uint16)
    not_numbers = np.isnan(x)
    if not_numbers.any():
        found[not_numbers] = (bits[not_numbers] >> 16) | 0x0040  # a quiet one
    return found.view(np.int16)


class NumPyOps(ArrayOps):
    """Array operations of NumPy: the reference."""

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self)

    def __hash__(self) -> int:
        return hash(type(self))

    def dtype(self, x: Array) -> str:
        return str(np.asarray(x).dtype)

    def is_row_major(self, x: Array) -> bool:
        return bool(x.flags.c_contiguous)

    def from_numpy(self, x: np.ndarray[Any, Any]) -> Array:
        return np.array(x)

    def to_numpy(self, x: Array) -> np.ndarray[Any, Any]:
        return np.array(x)

    def zeros(self, shape: Sequence[int], dtype: str) -> Array:
        return aligned.zeros(shape, dtype)

    def arange(self, size: int, dtype: str = "int64") -> Array:
        return np.arange(size, dtype=dtype)

    def zero_(self, x: Array) -> Array:
        x[...] = 0
        return x

    def copy(self, x: Array) -> Array:
        return aligned.copied(x)

    def cast(self, x: Array, dtype: str) -> Array:
        # Too large for float16 is inf, as on every other library and on the wire; it is no reason to warn.
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(x).astype(dtype, copy=False)

    def reshape(self, x: Array, shape: Sequence[int]) -> Array:
        return np.asarray(x).reshape(tuple(shape))

    def concat(self, arrays: Sequence[Array], axis: int = 0) -> Array:
        return np.concatenate(list(arrays), axis=axis)

    def split(self, x: Array, sizes: Sequence[int], axis: int = 0) -> list[Array]:
        return list(np.split(x, np.cumsum(list(sizes))[:-1], axis=axis))

    def stack(self, arrays: Sequence[Array]) -> Array:
        return np.stack(list(arrays))

    @property
    def piecewise(self) -> bool:
        return True

    def _new(self, size: int, dtype: str) -> Array:
        return aligned.empty((size,), dtype)

    def add_by_pieces_(self, x: Array, cut: Cut, unit: int, scale: float = 1.0) -> Array:
        if not self._in_cache(x):
            return super().add_by_pieces_(x, cut, unit, scale)
        flat = x.reshape(-1)
        for start, stop in pieces_of(flat.shape[0], unit):
            self.add_(flat[start:stop], self.cast(cut(start, stop), self.dtype(x)), scale)
        return x

    def change_parts_(self, x: Array, sizes: Sequence[int], change: Callable[[int, Array], Array]) -> Array:
        return change_in_place(x, sizes, change)

    def short_stream(self, key: Sequence[Any]) -> Cut:
        return ShortStream(key)

    def as_bytes(self, x: Array) -> Array:
        return np.ascontiguousarray(x).reshape(-1).view(np.uint8)

    def from_bytes(self, x: Array, dtype: str) -> Array:
        return np.array(x).view(np.dtype(dtype))

    def to_bfloat16_bits(self, x: Array) -> Array:
        flat = self.cast(np.asarray(x).reshape(-1), "float32")
        outputs = [(flat.shape[0], "int16")]
        (bits,) = self.by_pieces(lambda start, stop: [_bfloat16_bits(flat[start:stop])], flat.shape[0], 1, outputs)
        return bits.reshape(np.shape(x))

    def from_bfloat16_bits(self, bits: Array, dtype: str) -> Array:
        wide = aligned.empty(np.shape(bits), "uint32")
        narrow = np.ascontiguousarray(bits).view(np.uint16).reshape(wide.shape)
        np.left_shift(narrow, 16, out=wide, dtype=np.uint32)
        return self.cast(wide.view(np.float32), dtype)

    def bitcast(self, x: Array, dtype: str) -> Array:
        return np.ascontiguousarray(x).view(np.dtype(dtype))

    def bit_field(self, x: Array, first: int, width: int) -> Array:
        return (x >> first) & ((1 << width) - 1)

    def nonnegative(self, x: Array) -> Array:
        return np.asarray(x >= 0).view(np.uint8)

    def pack(self, x: Array, width: int) -> Array:
        if width == 8:
            return np.array(self.padded(x, -(-x.shape[0] // 8) * 8))
        if width == 1:
            return np.packbits(x, bitorder="little")
        length = WORD_LENGTHS.get(width, 64)
        words = np.ascontiguousarray(self.padded(x, -(-x.shape[0] // 8) * 8)).view(f"<u{length // 8}")
        together = gathered(words, width, length)
        if length < 64:
            return together.astype(np.uint8)
        return np.ascontiguousarray(together.view(np.uint8).reshape(-1, 8)[:, :width]).reshape(-1)

    def unpack(self, x: Array, width: int, count: int) -> Array:
        if width == 8:
            return np.array(x[:count])
        if width == 1:
            return np.unpackbits(x, count=count, bitorder="little")
        length = WORD_LENGTHS.get(width, 64)
        if length < 64:
            return spread(x.astype(f"<u{length // 8}"), width, length).view(np.uint8)[:count]
        wide = np.zeros((x.shape[0] // width, 8), np.uint8)
        wide[:, :width] = x.reshape(-1, width)
        return spread(wide.view("<u8").reshape(-1), width, 64).view(np.uint8)[:count]

    def top_k(self, x: Array, k: int) -> Array:
        return of_top(x, k)

    def largest(self, x: Array, k: int) -> Array:
        return by_threshold(x, k)

    def argmax(self, x: Array) -> Array:
        return np.argmax(x, axis=1)

    def argsort(self, x: Array) -> Array:
        return np.argsort(x, kind="stable")

    def cumsum(self, x: Array) -> Array:
        return np.cumsum(x, dtype=x.dtype)

    def searchsorted(self, x: Array, values: Array) -> Array:
        return np.searchsorted(x, values)

    def take(self, x: Array, positions: Array) -> Array:
        return x[positions]

    def put_(self, x: Array, positions: Array, values: Array | float) -> Array:
        x[positions] = values
        return x

    def add_at_(self, x: Array, positions: Array, values: Array) -> Array:
        np.add.at(x, positions, values)
        return x

    def add_around_(self, x: Array, start: int, y: Array) -> Array:
        first = min(x.shape[0] - start, y.shape[0])
        x[start : start + first] += y[:first]
        x[: y.shape[0] - first] += y[first:]
        return x

    def check(self, holds: Array, message: str) -> None:
        if not holds:
            raise CorruptPayloadError(message)

    def abs(self, x: Array) -> Array:
        return np.abs(x)

    def flip(self, x: Array, bits: Array, index: int) -> Array:
        width = 8 * x.dtype.itemsize
        words = f"u{x.dtype.itemsize}"
        # Whole words are shifted out of place: they may be asked for again.
        shift = np.dtype(words).type(width - 1 - index)
        masks = np.left_shift(bits.view(words) if bits.itemsize == x.itemsize else bits.astype(words), shift)
        masks &= np.dtype(words).type(1 << (width - 1))
        masks ^= np.ascontiguousarray(x).view(words)
        return masks.view(x.dtype)

    def sqrt(self, x: Array) -> Array:
        return np.sqrt(x)

    def floor(self, x: Array) -> Array:
        return np.floor(x)

    def minimum(self, x: Array, y: Array | float) -> Array:
        return np.minimum(x, y)

    def maximum(self, x: Array, y: Array | float) -> Array:
        return np.maximum(x, y)

    def sum(self, x: Array, axis: int | None = None) -> Array:
        return np.sum(x, axis=axis, keepdims=axis is not None, dtype=x.dtype)

    def max(self, x: Array, axis: int | None = None) -> Array:
        return np.max(x, axis=axis, keepdims=axis is not None)

    def max_abs(self, x: Array) -> Array:
        return np.maximum(np.max(x), -np.min(x))

    def median(self, x: Array) -> Array:
        return np.sort(x, axis=0)[x.shape[0] // 2]

    def add_(self, x: Array, y: Array, scale: float = 1.0) -> Array:
        if x.ndim == 0:
            return np.asarray(x + np.asarray(scale, x.dtype) * y, x.dtype)
        x += y if scale == 1.0 else np.asarray(scale, x.dtype) * y
        return x

    def scale_(self, x: Array, factor: Any) -> Array:
        if x.ndim == 0:
            return np.asarray(x * np.asarray(factor, x.dtype), x.dtype)
        x *= np.asarray(factor, x.dtype)
        return x

    def squared_(self, x: Array) -> Array:
        return np.multiply(x, x, out=x)

    def rounded_(self, x: Array, thresholds: Array, limit: float) -> Array:
        x *= np.asarray(limit, x.dtype)
        x += thresholds
        return np.clip(np.floor(x, out=x), -limit, limit, out=x)

    def scale_and_shift_(self, x: Array, scale: float, shift: float) -> Array:
        return self.add_(self.scale_(x, scale), np.asarray(shift, x.dtype))

    def finite_or_zero_(self, x: Array) -> Array:
        if not x.shape or not self.is_row_major(x):
            # 0-D arrays go through NumPy's functions as arrays and come out as scalars.
            return np.asarray(np.nan_to_num(np.asarray(x), copy=False, nan=0.0, posinf=0.0, neginf=0.0))
        flat = x.reshape(-1)
        for start, stop in pieces_of(flat.shape[0], 1):
            piece = flat[start:stop]
            with np.errstate(over="ignore", invalid="ignore"):
                total = np.sum(piece)
            if not np.isfinite(total):  # or it has left the range, and the piece is looked at for nothing
                np.nan_to_num(piece, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        return x

    def where(self, condition: Array, x: Array, y: Array) -> Array:
        return np.where(condition, x, y)

    def matmul(
        self, a: Array, b: Array, transpose_a: bool = False, transpose_b: bool = False, out: Array | None = None
    ) -> Array:
        left, right = a.T if transpose_a else a, b.T if transpose_b else b
        given = out if out is not None and self.is_row_major(out) else None
        if transpose_a and 0 < left.shape[1] <= FEW:
            # The same steps into new memory as into what is given: roundings must not tell ranks apart.
            made = np.empty((left.shape[0], right.shape[1]), a.dtype) if given is None else given
            put_product(made, left, right)
            return made
        if transpose_b and 0 < left.shape[0] <= FEW < b.shape[0]:
            return product_with_rows(left, b)
        return np.matmul(left, right, out=given)

    def subtract_product_(self, x: Array, a: Array, b: Array) -> Array:
        if a.shape[0]:
            subtract_product(x, a.T, b)
        return x

    def keep_rows_(self, x: Array, kept: Array) -> Array:
        x[~kept[:, 0]] = 0.0
        return x

    def row_maxima(self, x: Array) -> Array:
        return np.max(np.abs(x), axis=1, keepdims=True)

    def _row_norms(self, x: Array) -> Array:
        return np.sqrt(np.einsum("ij,ij->i", x, x)[:, None])

    def orthonormal_rows(self, x: Array) -> Array:
        return np.ascontiguousarray(np.linalg.qr(x.swapaxes(-1, -2))[0].swapaxes(-1, -2))

    def leading_left_vectors(self, x: Array, rank: int) -> Array:
        left, _, _ = np.linalg.svd(x, full_matrices=False)
        return np.ascontiguousarray(left[:, :rank].T)

    def svd(self, x: Array) -> tuple[Array, Array, Array]:
        left, values, right = np.linalg.svd(x, full_matrices=False)
        return np.ascontiguousarray(left.T), values, right
