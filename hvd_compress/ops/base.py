"""The contract of an array library: what algorithms may do with arrays.

Operations that end in an underscore are donated their first argument: they may overwrite it and callers use only
what is returned. No operation waits for a device, but for `to_numpy`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any, Literal, final

import numpy as np

from . import codes
from .array import Array, Cut
from .drawing import Drawing
from .pieces import PIECE, fill_by_pieces, put_in_place
from .ranges import norms_of_rows

# From (start, stop) to what is made of these elements: one 1-D array or more.
Part = Callable[[int, int], Sequence[Array]]
# From operations, arrays for them and the key of a random stream to what is made of these arrays.
Work = Callable[["ArrayOps", Sequence[Array], Sequence[Any]], Sequence[Array]]
# Shape and element type.
Shaped = tuple[Sequence[int], str]


class ArrayOps(Drawing, ABC):
    """What algorithms may do with arrays, for one array library and device."""

    # The axis of output features in the kernels of this library's layers.
    output_axis: Literal[0, -1] = 0
    # Whether arrays can change, so that memory that is donated is of use.
    in_place: bool = True

    # --- what an array is ---

    @abstractmethod
    def dtype(self, x: Array) -> str:
        """Return the element type's name, such as "float32"."""

    @final
    def shape(self, x: Array) -> tuple[int, ...]:
        """Return the dimensions."""
        shape = x.shape
        return tuple(shape) if isinstance(shape, tuple) else tuple(map(int, shape))

    @abstractmethod
    def is_row_major(self, x: Array) -> bool:
        """Return whether the numbers of x are in memory in row-major order, without gaps."""

    # --- making and moving ---

    @abstractmethod
    def to_numpy(self, x: Array) -> np.ndarray[Any, Any]:
        """Return a copy as a NumPy array; waits for the device."""

    @abstractmethod
    def zeros(self, shape: Sequence[int], dtype: str) -> Array:
        """Return zeros."""

    @abstractmethod
    def arange(self, size: int, dtype: str = "int64") -> Array:
        """Return 0, 1, ..., size - 1."""

    @abstractmethod
    def zero_(self, x: Array) -> Array:
        """Return zeros in the shape and element type of x."""

    @abstractmethod
    def copy(self, x: Array) -> Array:
        """Return a contiguous copy."""

    @abstractmethod
    def reshape(self, x: Array, shape: Sequence[int]) -> Array:
        """Return x in another shape, in row-major order; a view where that is possible."""

    @final
    def flatten(self, x: Array) -> Array:
        """Return x as 1-D."""
        return self.reshape(x, (-1,))

    @final
    def padded(self, x: Array, length: int) -> Array:
        """Return the 1-D array x with zeros appended up to `length` elements; x itself where it has them."""
        missing = length - self.shape(x)[0]
        return x if missing == 0 else self.concat([x, self.zeros((missing,), self.dtype(x))])

    def window(self, x: Array, start: Any, length: int) -> Array:
        """Return x[start : start + length] of 1-D x, filled up with zeros beyond the end; start is >= 0."""
        found = x[start : start + length]
        return self.padded(found, length)

    @abstractmethod
    def concat(self, arrays: Sequence[Array], axis: int = 0) -> Array:
        """Return the arrays joined along `axis`."""

    @abstractmethod
    def split(self, x: Array, sizes: Sequence[int], axis: int = 0) -> list[Array]:
        """Return consecutive pieces of x along `axis`, views where that is possible."""

    @abstractmethod
    def stack(self, arrays: Sequence[Array]) -> Array:
        """Return equal shapes joined along a new first axis."""

    @property
    def host(self) -> ArrayOps:
        """The operations for work in many small steps: NumPy's, quick to call, where they can share memory, or these.

        They are for the arrays that `on_host` returns; bfloat16 has no place there.
        """
        return self

    def on_host(self, x: Array) -> Array:
        """Return x as an array of `host`, in the same memory."""
        return x

    def off_host(self, x: Array) -> Array:
        """Return an array of `host` as one of these operations, in the same memory."""
        return x

    @property
    def piecewise(self) -> bool:
        """Whether `by_pieces` goes piece after piece."""
        return False

    def by_pieces(
        self,
        part: Part,
        size: int,
        unit: int,
        outputs: Sequence[tuple[int, str]],
        memory: Sequence[Array | None] = (),
    ) -> list[Array]:
        """Return what `part` makes of 0 .. size - 1, joined; on a processor piece after piece, as far as memory goes.

        Args:
            part: returns one 1-D array for every output, in new memory or in that of what it is made of.
            size: number of elements, >= 1.
            unit: every piece but the last is a multiple of so many elements long, >= 1.
            outputs: number of elements and element type of each output, whole.
            memory: for the outputs, as far as there is some: 1-D arrays of their sizes and types, donated.
        """
        if not self.piecewise or size <= PIECE:
            return list(part(0, size))
        found = [self._new(n, dtype) if m is None else m for (n, dtype), m in zip_longest(outputs, memory)]
        return fill_by_pieces(part, size, unit, found)

    def _new(self, size: int, dtype: str) -> Array:
        """Return memory for a 1-D array, of any numbers."""
        return self.zeros((size,), dtype)

    def at_once(
        self, work: Work, arrays: Sequence[Array], outputs: Sequence[Shaped], key: Sequence[Any] = (), donated: int = 0
    ) -> list[Array]:
        """Return what `work` makes of the arrays, in a single step where many are slow: in a graph on a processor.

        Args:
            work: is called with operations, arrays of theirs and the key, and looks at no other arrays.
            arrays: what it works on, numbers among them.
            outputs: shape and element type of each array that it returns.
            key: of a random stream, of numbers, names and 0-D integer arrays.
            donated: so many of the first arrays are donated.
        """
        del outputs, donated
        return list(work(self, arrays, key))

    def put_by_pieces_(self, x: Array, cut: Cut, unit: int) -> Array:
        """Return x with other numbers, that `cut` makes of 0 .. n - 1; on a processor piece after piece, in place.

        Args:
            x: of n elements, in any shape.
            cut: returns 1-D arrays.
            unit: every piece but the last is a multiple of so many elements long, >= 1.
        """
        if self._in_cache(x):
            put_in_place(self.flatten(x), cut, unit)
            return x
        return self.cast(self.reshape(cut(0, math.prod(self.shape(x))), self.shape(x)), self.dtype(x))

    def add_by_pieces_(self, x: Array, cut: Cut, unit: int, scale: float = 1.0) -> Array:
        """Return x + scale * what `cut` makes of 0 .. n - 1; arguments and memory as in `put_by_pieces_`."""
        del unit
        made = cut(0, math.prod(self.shape(x)))
        return self.add_(x, self.cast(self.reshape(made, self.shape(x)), self.dtype(x)), scale)

    @final
    def _in_cache(self, x: Array) -> bool:
        """Whether working on x by pieces pays, and can be done in place."""
        return self.piecewise and self.is_row_major(x)

    def change_parts_(self, x: Array, sizes: Sequence[int], change: Callable[[int, Array], Array]) -> Array:
        """Return 1-D x with `change(i, part)` for part i of consecutive ones of these sizes; parts are donated."""
        return self.concat([change(i, part) for i, part in enumerate(self.split(x, sizes))])

    @abstractmethod
    def bit_field(self, x: Array, first: int, width: int) -> Array:
        """Return the numbers in bits [first, first + width) of whole numbers x >= 0."""

    @abstractmethod
    def nonnegative(self, x: Array) -> Array:
        """Return 1 where x >= 0, else 0, as uint8."""

    @abstractmethod
    def as_bytes(self, x: Array) -> Array:
        """Return the bits of x as a 1-D uint8 array."""

    @abstractmethod
    def from_bytes(self, x: Array, dtype: str) -> Array:
        """Return the 1-D array whose bits are the 1-D uint8 array x."""

    @abstractmethod
    def to_bfloat16_bits(self, x: Array) -> Array:
        """Return x rounded to the nearest bfloat16 (ties to even), its bits as int16."""

    @abstractmethod
    def from_bfloat16_bits(self, bits: Array, dtype: str) -> Array:
        """Return the numbers whose bfloat16 bits are given as int16."""

    @abstractmethod
    def bitcast(self, x: Array, dtype: str) -> Array:
        """Return the bits of x as another element type of the same width."""

    @abstractmethod
    def pack(self, x: Array, width: int) -> Array:
        """Return the 1-D uint8 array x, of numbers below 2^width, in `width` bits each, as uint8.

        Number i is in bits [i width, (i + 1) width), lowest bit first; every 8 numbers make `width` whole bytes, and
        the last group is filled up with zeros: ceil(n / 8) width bytes.
        """

    @abstractmethod
    def unpack(self, x: Array, width: int, count: int) -> Array:
        """Return the first `count` numbers that `pack` put into x, as uint8."""

    def signs_and_sums(self, x: Array, width: int, dtype: str, magnitudes: bool) -> tuple[Array, Array]:
        """Return pack(nonnegative(x), 1) and the sum of |x|, or of x - x, over every `width` numbers of 1-D x."""
        return codes.signs_and_sums(x, width, dtype, magnitudes, self)

    def restorer(self, packed: Array, steps: Array, coding: codes.Coding, dtype: str) -> Cut:
        """Return what makes numbers start .. stop - 1 of packed codes; start is a multiple of 8 and begins a bucket."""
        made = codes.packed_codes(packed, coding.width, self)
        return codes.restorer(made, steps, dtype, coding.bucket, coding.levels, self, stride=coding.stride)

    # --- selection; positions are int64 ---

    @abstractmethod
    def top_k(self, x: Array, k: int) -> Array:
        """Return the positions of the k largest numbers of 1-D x, in ascending order; NaN is largest."""

    @abstractmethod
    def largest(self, x: Array, k: int) -> Array:
        """Return the positions of the k largest |x| of 1-D x, in ascending order; NaN is largest."""

    @abstractmethod
    def argmax(self, x: Array) -> Array:
        """Return for every row of 2-D x the position of its largest number, the first of several; NaN is largest."""

    def argmax_abs(self, x: Array) -> Array:
        """Return `argmax` of |x|."""
        return self.argmax(self.abs(x))

    @abstractmethod
    def argsort(self, x: Array) -> Array:
        """Return the positions that sort 1-D x ascending, equal numbers in their order."""

    @abstractmethod
    def take(self, x: Array, positions: Array) -> Array:
        """Return the elements of 1-D x, or the rows of 2-D x, at the given positions."""

    @abstractmethod
    def put_(self, x: Array, positions: Array, values: Array | float) -> Array:
        """Return 1-D x with elements, or 2-D x with rows, at the given positions, each named once, replaced."""

    @abstractmethod
    def add_at_(self, x: Array, positions: Array, values: Array) -> Array:
        """Return 1-D x with values added at the given positions, which may be named more than once."""

    @abstractmethod
    def add_around_(self, x: Array, start: int, y: Array) -> Array:
        """Return 1-D x with element i of 1-D y, which is not longer, added at (start + i) mod len(x)."""

    def turned_sums(self, x: Array, signs: Sequence[Array], turns: Array, columns: int) -> Array | None:
        """Return the table of `RotationHashes` for 1-D x, or None where it is not made in one pass."""
        return None

    def turned_medians(self, table: Array, signs: Sequence[Array], turns: Array, memory: Array | None) -> Array | None:
        """Return the estimates of `RotationHashes` from a table, or None where they are not made in one pass."""
        return None

    @abstractmethod
    def check(self, holds: Array, message: str) -> None:
        """Raise unless the 0-D truth value holds; on an accelerator the failure is raised later, without waiting.

        Raises:
            CorruptPayloadError: it does not; with the message.
        """

    @abstractmethod
    def cumsum(self, x: Array) -> Array:
        """Return the running sums of 1-D x: x[0], x[0] + x[1], ..."""

    @abstractmethod
    def searchsorted(self, x: Array, values: Array) -> Array:
        """Return for every value the first position of ascending 1-D x whose number is not below it; len(x) if none."""

    # --- arithmetic, besides the operators + - * / // % and comparisons, which broadcast ---

    @abstractmethod
    def abs(self, x: Array) -> Array:
        """Return absolute values."""

    @abstractmethod
    def flip(self, x: Array, bits: Array, index: int) -> Array:
        """Return x, float32 or float64, with another sign where bit `index` of `bits` is set.

        Bits are uint8, or integers as wide as x, in its shape; for several indices the latter are faster.
        """

    @abstractmethod
    def sqrt(self, x: Array) -> Array:
        """Return square roots."""

    @abstractmethod
    def floor(self, x: Array) -> Array:
        """Return the largest whole numbers that are not above x."""

    @abstractmethod
    def minimum(self, x: Array, y: Array | float) -> Array:
        """Return the smaller of x and y; NaN where one is."""

    @abstractmethod
    def maximum(self, x: Array, y: Array | float) -> Array:
        """Return the larger of x and y; NaN where one is."""

    @abstractmethod
    def sum(self, x: Array, axis: int | None = None) -> Array:
        """Return the sum over an axis, which stays with length 1; over all of x, 0-D, if None."""

    @abstractmethod
    def max(self, x: Array, axis: int | None = None) -> Array:
        """Return the largest number along an axis, which stays with length 1; of all of x, 0-D, if None."""

    @abstractmethod
    def max_abs(self, x: Array) -> Array:
        """Return the largest |x| of all of x, 0-D; NaN where there is one."""

    @abstractmethod
    def median(self, x: Array) -> Array:
        """Return the median over the first axis, of odd length: (r, n) -> (n,)."""

    @final
    def norm(self, x: Array) -> Array:
        """Return the Euclidean norm of all of x, 0-D."""
        return self.sqrt(self.sum(x * x))

    @abstractmethod
    def add_(self, x: Array, y: Array, scale: float = 1.0) -> Array:
        """Return x + scale * y; y is an array, or a number."""

    @abstractmethod
    def scale_(self, x: Array, factor: Any) -> Array:
        """Return factor * x; the factor is a number, or an array that broadcasts to the shape of x."""

    def scale_and_add_(self, x: Array, factor: Any, y: Array) -> Array:
        """Return factor * x + y; the factor is a number, or a 0-D array of the element type of x."""
        return self.add_(self.scale_(x, factor), y)

    @abstractmethod
    def squared_(self, x: Array) -> Array:
        """Return x * x."""

    @abstractmethod
    def rounded_(self, x: Array, thresholds: Array, limit: float) -> Array:
        """Return floor(limit * x + thresholds), cut to -limit .. limit; NaN where x is."""

    @abstractmethod
    def finite_or_zero_(self, x: Array) -> Array:
        """Return x with every infinity and NaN replaced by zero."""

    @abstractmethod
    def where(self, condition: Array, x: Array, y: Array) -> Array:
        """Return x where condition holds, else y (broadcast)."""

    @abstractmethod
    def matmul(
        self, a: Array, b: Array, transpose_a: bool = False, transpose_b: bool = False, out: Array | None = None
    ) -> Array:
        """Return the matrix product, row-major; `out`, of its shape and element type, is donated to it.

        It is used where its layout is row-major too, and makes no difference to the numbers.
        """

    @abstractmethod
    def subtract_product_(self, x: Array, a: Array, b: Array) -> Array:
        """Return x - a^T b for x (n, m), a (r, n), b (r, m), a rank's own: roundings may depend on threads."""

    @abstractmethod
    def keep_rows_(self, x: Array, kept: Array) -> Array:
        """Return 2-D x with zeros in every row where the column `kept`, (r, 1), does not hold."""

    @abstractmethod
    def row_maxima(self, x: Array) -> Array:
        """Return the largest absolute value of each row, as a column: (r, m) -> (r, 1)."""

    @final
    def row_norms(self, x: Array) -> Array:
        """Return the Euclidean norm of each row, as a column: (r, m) -> (r, 1); squares may be out of range."""
        return norms_of_rows(x, self._row_norms, self)

    @abstractmethod
    def _row_norms(self, x: Array) -> Array:
        """Return what `row_norms` does where squares are in range."""

    @abstractmethod
    def orthonormal_rows(self, x: Array) -> Array:
        """Return (r, n) with orthonormal rows that span at least the rows of x (r <= n), by Householder QR.

        Defined for every finite x: where x has lower rank the missing rows are filled with an orthonormal complement.
        Of (..., r, n) every matrix gets its own.
        """

    @abstractmethod
    def leading_left_vectors(self, x: Array, rank: int) -> Array:
        """Return (rank, n): the left singular vectors of x (n, m) with the largest singular values, as rows."""

    @abstractmethod
    def svd(self, x: Array) -> tuple[Array, Array, Array]:
        """Return (k, n) left vectors, (k,) singular values, descending, and (k, m) right vectors; k = min(n, m)."""
