"""Array operations of TensorFlow, eager and inside a graph, on the device that TensorFlow places them on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import CorruptPayloadError
from . import in_numpy
from .array import Array
from .base import ArrayOps, Shaped, Work
from .drawing import Draw
from .largest import by_groups

# Elements from which looking at all of them is faster than writing them.
_MANY = 2**16
# One element somewhere in memory takes TensorFlow as long as so many in a row.
_AS_MANY = 64


class TensorFlowOps(ArrayOps):
    """Array operations of TensorFlow. Tensors never change: what is donated is left as it was.

    Shapes are static: every operation returns arrays whose shape is known when a graph is built.
    """

    output_axis = -1
    in_place = False

    def __init__(self) -> None:
        import tensorflow

        self._tf = tensorflow

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self)

    def __hash__(self) -> int:
        return hash(type(self))

    def dtype(self, x: Array) -> str:
        return str(x.dtype.name)

    def is_row_major(self, x: Array) -> bool:
        return True

    def from_numpy(self, x: np.ndarray[Any, Any]) -> Array:
        # A view of the caller's memory would change with it; and what is made in one graph, as a table of hashes that
        # is kept, could not be used in another.
        with self._tf.init_scope():
            return self._tf.constant(np.array(x))

    def to_numpy(self, x: Array) -> np.ndarray[Any, Any]:
        return np.array(x.numpy())

    def zeros(self, shape: Sequence[int], dtype: str) -> Array:
        return self._tf.zeros(tuple(shape), dtype)

    def drawn(self, draw: Draw, shape: Sequence[int], dtype: str, key: Sequence[Any]) -> Array:
        if not any(self._tf.is_tensor(part) for part in key):
            return self.from_numpy(draw(key))
        return in_numpy.done(lambda ops, arrays, key: [draw(key)], [], [(shape, dtype)], key, 0)[0]

    def at_once(
        self, work: Work, arrays: Sequence[Array], outputs: Sequence[Shaped], key: Sequence[Any] = (), donated: int = 0
    ) -> list[Array]:
        if not in_numpy.pays(arrays, outputs):
            return super().at_once(work, arrays, outputs, key, donated)
        return in_numpy.done(work, arrays, outputs, key, donated)

    def arange(self, size: int, dtype: str = "int64") -> Array:
        return self._tf.cast(self._tf.range(size, dtype="int64"), dtype)

    def zero_(self, x: Array) -> Array:
        return self._tf.zeros_like(x)

    def copy(self, x: Array) -> Array:
        return self._tf.identity(x)

    def cast(self, x: Array, dtype: str) -> Array:
        return self._tf.cast(x, dtype)

    def reshape(self, x: Array, shape: Sequence[int]) -> Array:
        return self._tf.reshape(x, tuple(shape))

    def window(self, x: Array, start: Any, length: int) -> Array:
        tf, size = self._tf, x.shape[0]
        first = tf.minimum(tf.cast(start, tf.int64), size)
        count = tf.minimum(tf.constant(length, tf.int64), size - first)
        found = tf.slice(x, tf.reshape(first, (1,)), tf.reshape(count, (1,)))
        return tf.ensure_shape(tf.pad(found, [[0, length - count]]), (length,))

    def concat(self, arrays: Sequence[Array], axis: int = 0) -> Array:
        return self._tf.concat(list(arrays), axis=axis)

    def split(self, x: Array, sizes: Sequence[int], axis: int = 0) -> list[Array]:
        return list(self._tf.split(x, list(sizes), axis=axis))

    def stack(self, arrays: Sequence[Array]) -> Array:
        return self._tf.stack(list(arrays))

    def as_bytes(self, x: Array) -> Array:
        return self._tf.reshape(self._tf.bitcast(x, "uint8"), (-1,))

    def from_bytes(self, x: Array, dtype: str) -> Array:
        tf = self._tf
        width = tf.as_dtype(dtype).size
        return tf.bitcast(tf.reshape(x, (-1, width)) if width > 1 else x, dtype)

    def to_bfloat16_bits(self, x: Array) -> Array:
        return self._tf.bitcast(self._tf.cast(x, "bfloat16"), "int16")

    def from_bfloat16_bits(self, bits: Array, dtype: str) -> Array:
        return self._tf.cast(self._tf.bitcast(bits, "bfloat16"), dtype)

    def bitcast(self, x: Array, dtype: str) -> Array:
        return self._tf.bitcast(x, dtype)

    def bit_field(self, x: Array, first: int, width: int) -> Array:
        bitwise, mask = self._tf.bitwise, self._tf.constant((1 << width) - 1, x.dtype)
        return bitwise.bitwise_and(bitwise.right_shift(x, self._tf.constant(first, x.dtype)), mask)

    def nonnegative(self, x: Array) -> Array:
        return self._tf.cast(x >= 0, "uint8")

    def pack(self, x: Array, width: int) -> Array:
        tf = self._tf
        whole = self.padded(x, -(-x.shape[0] // 8) * 8)
        if 8 % width == 0:
            groups = tf.reshape(whole, (-1, 8 // width))
            places = tf.constant([[1 << (i * width) for i in range(8 // width)]], tf.uint8)
            # Every number has bits of its own, so that adding them up is putting them side by side.
            return tf.reduce_sum(groups * places, axis=1)
        groups = tf.cast(tf.reshape(whole, (-1, 8)), tf.int64)
        places = tf.constant([[1 << (i * width) for i in range(8)]], tf.int64)
        words = tf.bitcast(tf.reduce_sum(groups * places, axis=1), tf.uint8)
        return tf.reshape(words[:, :width], (-1,))

    def unpack(self, x: Array, width: int, count: int) -> Array:
        tf = self._tf
        mask = (1 << width) - 1
        if 8 % width == 0:
            shifts = tf.constant([[i * width for i in range(8 // width)]], tf.uint8)
            numbers = tf.bitwise.bitwise_and(tf.bitwise.right_shift(x[:, None], shifts), tf.constant(mask, tf.uint8))
            return tf.reshape(numbers, (-1,))[:count]
        groups = tf.reshape(x, (-1, width))
        words = tf.bitcast(tf.pad(groups, [[0, 0], [0, 8 - width]]), tf.int64)
        shifts = tf.constant([[i * width for i in range(8)]], tf.int64)
        numbers = tf.bitwise.bitwise_and(tf.bitwise.right_shift(words[:, None], shifts), tf.constant(mask, tf.int64))
        return tf.cast(tf.reshape(numbers, (-1,))[:count], tf.uint8)

    def top_k(self, x: Array, k: int) -> Array:
        tf = self._tf
        if k >= x.shape[0]:
            return self.arange(x.shape[0])
        order = tf.where(tf.math.is_nan(x), tf.constant(np.inf, x.dtype), x) if x.dtype.is_floating else x
        return tf.cast(tf.sort(tf.math.top_k(order, k, sorted=False).indices), tf.int64)

    def largest(self, x: Array, k: int) -> Array:
        outputs = [((min(k, x.shape[0]),), "int64")]
        if not in_numpy.pays([x], outputs):
            return by_groups(self.abs(x), k, self)
        return in_numpy.done(lambda ops, arrays, key: [ops.largest(arrays[0], k)], [x], outputs, (), 0)[0]

    def argmax(self, x: Array) -> Array:
        tf = self._tf
        order = tf.where(tf.math.is_nan(x), tf.constant(np.inf, x.dtype), x)
        return tf.argmax(order, axis=1)

    def argsort(self, x: Array) -> Array:
        return self._tf.cast(self._tf.argsort(x, stable=True), "int64")

    def cumsum(self, x: Array) -> Array:
        return self._tf.cumsum(x)

    def searchsorted(self, x: Array, values: Array) -> Array:
        flat = self._tf.reshape(values, (-1,))
        return self._tf.reshape(self._tf.searchsorted(x, flat, out_type="int64"), values.shape)

    def take(self, x: Array, positions: Array) -> Array:
        return self._tf.gather(x, positions)

    def put_(self, x: Array, positions: Array, values: Array | float) -> Array:
        tf, updates = self._tf, self._like(values, x)
        if self._many_in_numpy(x, positions):
            return self._changed(lambda ops, arrays, key: [ops.put_(*arrays)], x, positions, updates)
        full = tf.broadcast_to(updates, (*positions.shape, *x.shape[1:]))
        return tf.tensor_scatter_nd_update(x, positions[:, None], full)

    def add_at_(self, x: Array, positions: Array, values: Array) -> Array:
        if self._many_in_numpy(x, positions):
            return self._changed(lambda ops, arrays, key: [ops.add_at_(*arrays)], x, positions, values)
        return self._tf.tensor_scatter_nd_add(x, positions[:, None], values)

    def _many_in_numpy(self, x: Array, positions: Array) -> bool:
        """Return whether NumPy is to change elements of x: TensorFlow copies as fast, but takes long for each."""
        return _AS_MANY * positions.shape[0] >= in_numpy.WORTH and in_numpy.pays([x], [])

    def _changed(self, change: Work, x: Array, *others: Array) -> Array:
        return in_numpy.done(change, [x, *others], [(x.shape, x.dtype.name)], (), 1)[0]

    def add_around_(self, x: Array, start: int, y: Array) -> Array:
        tf, missing = self._tf, x.shape[0] - y.shape[0]
        cut = max(0, start + y.shape[0] - x.shape[0])
        # What goes over the end comes first, then a gap, then the rest of y.
        gaps = [tf.zeros((n,), x.dtype) for n in (missing if cut else start, 0 if cut else missing - start)]
        head, tail = y[y.shape[0] - cut :], y[: y.shape[0] - cut]
        return self.add_(x, tf.concat([head, gaps[0], tail, gaps[1]], axis=0))

    def check(self, holds: Array, message: str) -> None:
        if self._tf.executing_eagerly():
            if not holds:
                raise CorruptPayloadError(message)
        else:
            # A graph runs it before the step ends: assertions are side effects.
            self._tf.debugging.Assert(holds, [message])

    def abs(self, x: Array) -> Array:
        return self._tf.abs(x)

    def flip(self, x: Array, bits: Array, index: int) -> Array:
        tf = self._tf
        words, width = (tf.int32, 32) if x.dtype == tf.float32 else (tf.int64, 64)
        shifted = tf.bitwise.left_shift(tf.cast(bits, words), tf.constant(width - 1 - index, words))
        masks = tf.bitwise.bitwise_and(shifted, tf.constant(-1 << (width - 1), words))
        return tf.bitcast(tf.bitwise.bitwise_xor(masks, tf.bitcast(x, words)), x.dtype)

    def sqrt(self, x: Array) -> Array:
        return self._tf.sqrt(x)

    def floor(self, x: Array) -> Array:
        return self._tf.floor(x)

    def minimum(self, x: Array, y: Array | float) -> Array:
        return self._tf.minimum(x, self._like(y, x))

    def maximum(self, x: Array, y: Array | float) -> Array:
        return self._tf.maximum(x, self._like(y, x))

    def sum(self, x: Array, axis: int | None = None) -> Array:
        return self._tf.reduce_sum(x, axis=axis, keepdims=axis is not None)

    def max(self, x: Array, axis: int | None = None) -> Array:
        return self._tf.reduce_max(x, axis=axis, keepdims=axis is not None)

    def max_abs(self, x: Array) -> Array:
        return self._tf.reduce_max(self._tf.abs(x))

    def median(self, x: Array) -> Array:
        return self._tf.sort(x, axis=0)[x.shape[0] // 2]

    def add_(self, x: Array, y: Array, scale: float = 1.0) -> Array:
        total = x + y if scale == 1.0 else x + self._like(scale, x) * y
        # The graph optimiser adds up chains of sums in an order of its own, which differs between processes; results
        # that are to be equal on all ranks would differ by roundings. It does not see through this identity.
        if self._tf.executing_eagerly():
            return total
        return self._tf.raw_ops.PlaceholderWithDefault(input=total, shape=total.shape)

    def scale_(self, x: Array, factor: Any) -> Array:
        return x * self._like(factor, x)

    def squared_(self, x: Array) -> Array:
        return self._tf.square(x)

    def rounded_(self, x: Array, thresholds: Array, limit: float) -> Array:
        return self._tf.clip_by_value(self._tf.floor(x * self._like(limit, x) + thresholds), -limit, limit)

    def scale_and_shift_(self, x: Array, scale: float, shift: float) -> Array:
        return x * self._like(scale, x) + self._like(shift, x)

    def finite_or_zero_(self, x: Array) -> Array:
        tf = self._tf

        def cleaned() -> Array:
            return tf.where(tf.math.is_finite(x), x, tf.zeros_like(x))

        if math.prod(x.shape) < _MANY or in_numpy.sees_accelerator():  # which a condition waits for
            return cleaned()
        # A sum that is finite is one of finite numbers.
        return tf.cond(tf.math.is_finite(tf.reduce_sum(x)), lambda: x, cleaned)

    def where(self, condition: Array, x: Array, y: Array) -> Array:
        tf = self._tf
        like = next((a for a in (x, y) if tf.is_tensor(a)), tf.constant(0.0))
        return tf.where(condition, self._like(x, like), self._like(y, like))

    def matmul(
        self, a: Array, b: Array, transpose_a: bool = False, transpose_b: bool = False, out: Array | None = None
    ) -> Array:
        del out
        return self._tf.matmul(a, b, transpose_a=transpose_a, transpose_b=transpose_b)

    def subtract_product_(self, x: Array, a: Array, b: Array) -> Array:
        return x - self._tf.matmul(a, b, transpose_a=True)

    def keep_rows_(self, x: Array, kept: Array) -> Array:
        return self._tf.where(kept, x, self._tf.zeros_like(x))

    def row_maxima(self, x: Array) -> Array:
        return self._tf.reduce_max(self._tf.abs(x), axis=1, keepdims=True)

    def _row_norms(self, x: Array) -> Array:
        return self._tf.sqrt(self._tf.reduce_sum(x * x, axis=1, keepdims=True))

    def orthonormal_rows(self, x: Array) -> Array:
        tf = self._tf
        # Its QR squares numbers without scaling them first, as LAPACK does: they would leave the range of float32.
        largest = tf.reduce_max(tf.abs(x), axis=-1, keepdims=True)
        x = x / tf.where(tf.equal(largest, 0.0), tf.ones_like(largest), largest)
        return tf.linalg.matrix_transpose(tf.linalg.qr(tf.linalg.matrix_transpose(x))[0])

    def leading_left_vectors(self, x: Array, rank: int) -> Array:
        _, left, _ = self._tf.linalg.svd(x)
        return self._tf.transpose(left[:, :rank])

    def svd(self, x: Array) -> tuple[Array, Array, Array]:
        values, left, right = self._tf.linalg.svd(x)
        return self._tf.transpose(left), values, self._tf.transpose(right)

    def _like(self, value: Array | float, x: Array) -> Array:
        """Return a number or an array in the element type of x."""
        # A cast would take a number for float32 first, and round it.
        return self._tf.cast(value, x.dtype) if self._tf.is_tensor(value) else self._tf.constant(value, x.dtype)
