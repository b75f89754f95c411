"""Law: array operations of TensorFlow, eagerly and in a graph, and of torch do what NumPy's do.

In a graph shapes are known beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import torch
from cases import TENSORFLOW, bits, dtype_of, wide

from hvd_compress import CorruptPayloadError
from hvd_compress.ops import ArrayOps, TorchOps, ops_of

pytestmark = pytest.mark.usefixtures("where_work_is_done")

Call = Callable[..., Any]

RANDOM = np.random.default_rng(0)
NUMBERS = RANDOM.standard_normal(24).astype(np.float32)
ODD = np.float32([3.0, -0.0, np.inf, 0.5, -np.inf, 0.5, -7.0, 65504.0, 1e30, 2.0**-20])
WITH_NAN = np.float32([1.0, np.nan, 3.0, -2.0, np.inf, 3.0])
TABLE = NUMBERS.reshape(4, 6)
NOTHING = np.zeros((0,), np.float32)
POSITIONS = np.array([0, 3, 7], np.int64)


def many_with(*numbers: float) -> np.ndarray:
    """Return so many numbers that libraries look at their sum, with these among the last."""
    x = np.resize(NUMBERS, 3 * 2**17)
    x[-3 : -3 + len(numbers)] = numbers
    return x


@dataclass(frozen=True)
class Case:
    """An operation, what it is given, and how far its results may be from NumPy's, relative to the largest."""

    name: str
    call: Call
    inputs: Sequence[Any]
    tolerance: float = 0.0


def rebuilt(ops: ArrayOps, left: Any, values: Any, right: Any) -> Any:
    """Return the matrix of singular triplets."""
    return ops.matmul(left * ops.reshape(values, (-1, 1)), right, transpose_a=True)


CASES = [
    *(
        Case(f"arange of {t}", lambda o, x, t=t: o.arange(5, t), [NOTHING])
        for t in ("uint8", "int16", "int32", "int64", "float32", "float64")
    ),
    *(Case(f"cast to {t}", lambda o, x, t=t: o.cast(x, t), [ODD[:4]]) for t in ("float16", "float32", "float64")),
    Case("cast to whole numbers", lambda o, x: o.cast(x, "int32"), [np.float32([1.9, -1.9, 0.0])]),
    Case("zero", lambda o, x: o.zero_(o.copy(x)), [ODD]),
    Case("zero in whole numbers", lambda o, x: o.zero_(o.copy(x)), [np.int64([[3, 1]])]),
    Case("padded", lambda o, x: o.padded(x, 30), [NUMBERS]),
    Case("window", lambda o, x: o.window(x, 5, 6), [NUMBERS]),
    Case("window over the end", lambda o, x: o.window(x, 20, 6), [NUMBERS]),
    Case("window beyond the end", lambda o, x: o.window(x, 40, 6), [NUMBERS]),
    Case("window at a number of the graph", lambda o, x, i: o.window(x, i, 6), [NUMBERS, np.int64(21)]),
    Case("concat along 1", lambda o, x: o.concat([x, x], 1), [TABLE]),
    Case("split", lambda o, x: o.split(x, [4, 0, 20]), [NUMBERS]),
    Case("split along 1", lambda o, x: o.split(x, [1, 5], 1), [TABLE]),
    Case("stack", lambda o, x: o.stack([x, x]), [TABLE]),
    Case("bytes", lambda o, x: o.as_bytes(x), [ODD]),
    Case("bytes of nothing", lambda o, x: o.as_bytes(x), [NOTHING]),
    Case("from bytes", lambda o, x: o.from_bytes(x, "float64"), [np.arange(16, dtype=np.uint8)]),
    Case("from no bytes", lambda o, x: o.from_bytes(x, "int16"), [np.zeros(0, np.uint8)]),
    Case("bfloat16", lambda o, x: o.to_bfloat16_bits(x), [np.append(ODD, NUMBERS)]),
    Case("bfloat16 ties", lambda o, x: o.to_bfloat16_bits(x), [np.float32([1 + 2**-8, 1 + 3 * 2**-8, 3.4e38])]),
    Case("bfloat16 back", lambda o, x: o.from_bfloat16_bits(x, "float64"), [np.int16([16256, -16256, 0, 32639])]),
    Case("bitcast", lambda o, x: o.bitcast(x, "int32"), [ODD]),
    Case("top k", lambda o, x: o.top_k(x, 7), [NUMBERS]),
    Case("top k with NaN", lambda o, x: o.top_k(x, 2), [np.float32([1.0, np.nan, 3.0, -2.0, np.inf])]),
    Case("top k of all", lambda o, x: o.top_k(x, 24), [NUMBERS]),
    Case("top k of nothing", lambda o, x: o.top_k(x, 0), [NOTHING]),
    Case("argmax", lambda o, x: o.argmax(x), [np.float32([[1, 3, 3], [np.nan, 9, np.inf], [-1, -2, -3]])]),
    Case("largest", lambda o, x: o.largest(x, 7), [NUMBERS]),
    Case("largest with NaN", lambda o, x: o.largest(x, 2), [np.float32([1.0, np.nan, 3.0, -np.inf, -4.0])]),
    Case("largest of all", lambda o, x: o.largest(x, 24), [NUMBERS]),
    Case("largest of nothing", lambda o, x: o.largest(x, 0), [NOTHING]),
    Case("argsort with ties", lambda o, x: o.argsort(x), [np.int64([3, 1, 3, 1, 2, 1])]),
    Case("take", lambda o, x, i: o.take(x, i), [NUMBERS, POSITIONS]),
    Case("take rows", lambda o, x, i: o.take(x, i), [TABLE, np.int64([2, 0, 2])]),
    Case("take nothing", lambda o, x, i: o.take(x, i), [NUMBERS, POSITIONS[:0]]),
    Case("put", lambda o, x, i: o.put_(o.copy(x), i, o.take(x, i) * 2.0), [NUMBERS, POSITIONS]),
    Case("put a number", lambda o, x, i: o.put_(o.copy(x), i, 0.1), [NUMBERS, POSITIONS]),
    Case("put a number in float64", lambda o, x, i: o.put_(o.copy(x), i, 0.1), [NUMBERS.astype(float), POSITIONS]),
    Case("put rows", lambda o, x, i: o.put_(o.copy(x), i, o.take(x, i) * 2.0), [TABLE, np.int64([3, 1])]),
    Case("put nothing", lambda o, x, i: o.put_(o.copy(x), i, 0.0), [NUMBERS, POSITIONS[:0]]),
    Case("add at", lambda o, x, i: o.add_at_(o.copy(x), i, o.take(x, i)), [np.arange(9.0), np.int64([3, 3, 0])]),
    *(
        Case(
            f"add {n} around from {i}",
            lambda o, x, y, i=i, n=n: o.add_around_(o.copy(x), i, y[:n]),
            [NUMBERS, -NUMBERS],
        )
        for i, n in ((0, 24), (5, 24), (23, 24), (0, 9), (15, 9), (16, 9), (20, 9), (3, 0))
    ),
    Case("running sums", lambda o, x: o.cumsum(x), [np.int64([3, 1, -4, 1])]),
    Case("searchsorted", lambda o, x, v: o.searchsorted(x, v), [np.int64([1, 3, 3, 7]), np.int64([0, 3, 4, 8])]),
    Case("searchsorted of a table", lambda o, x, v: o.searchsorted(x, v), [np.arange(9), np.int64([[2, 40], [0, 8]])]),
    Case("abs", lambda o, x: o.abs(x), [ODD]),
    *(
        Case(f"flip by bit {i}", lambda o, x, b, i=i: o.flip(x, b, i), [ODD, np.arange(10, dtype=np.uint8)])
        for i in (0, 7)
    ),
    Case("flip in float64", lambda o, x, b: o.flip(x, b, 1), [ODD.astype(float), np.arange(10, dtype=np.uint8)]),
    Case("floor", lambda o, x: o.floor(x), [np.float32([1.5, -1.5, -0.0, 3.0])]),
    Case("minimum with a number", lambda o, x: o.minimum(x, 0.1), [WITH_NAN.astype(float)]),
    Case("maximum with a number", lambda o, x: o.maximum(x, 0.1), [WITH_NAN.astype(float)]),
    Case("minimum of two", lambda o, x: o.minimum(x, -x), [NUMBERS]),
    Case("maximum of two", lambda o, x: o.maximum(x, -x), [NUMBERS]),
    Case("sum", lambda o, x: o.sum(x), [TABLE], 1e-6),
    Case("sum along 1", lambda o, x: o.sum(x, 1), [TABLE], 1e-6),
    Case("sum of nothing", lambda o, x: o.sum(x), [NOTHING]),
    Case("max", lambda o, x: o.max(x), [TABLE]),
    Case("max with NaN", lambda o, x: o.max(x), [WITH_NAN]),
    Case("max along 0", lambda o, x: o.max(x, 0), [TABLE]),
    Case("largest magnitude", lambda o, x: o.max_abs(x), [-NUMBERS]),
    Case("largest magnitude with NaN", lambda o, x: o.max_abs(x), [WITH_NAN]),
    Case("largest magnitude with infinities", lambda o, x: o.max_abs(x), [np.float32([-np.inf, 1.0])]),
    Case("median", lambda o, x: o.median(x), [TABLE[:3]]),
    Case("norm", lambda o, x: o.norm(x), [TABLE], 1e-6),
    Case("add", lambda o, x, y: o.add_(o.copy(x), y), [NUMBERS, ODD[0] + NUMBERS]),
    Case(
        "add a multiple",
        lambda o, x, y: o.add_(o.copy(x), y, 0.1),
        [NUMBERS.astype(float), 2.0 - NUMBERS.astype(float)],
        1e-15,
    ),
    Case("scale", lambda o, x: o.scale_(o.copy(x), 1.0 / 3), [NUMBERS.astype(float)]),
    Case("scale a scalar", lambda o, x: o.scale_(o.copy(x), 1.0 / 3), [np.float64(0.7)]),
    Case("scale by an array", lambda o, x, f: o.scale_(o.copy(x), f), [NUMBERS, np.float64(0.5)]),
    Case("finite or zero", lambda o, x: o.finite_or_zero_(o.copy(x)), [WITH_NAN]),
    *(
        Case(f"finite or zero of many{what}", lambda o, x: o.finite_or_zero_(o.copy(x)), [many_with(*numbers)])
        for what, numbers in {"": (), " with inf": (np.inf, -np.inf), " beyond the range": (3e38, 3e38)}.items()
    ),
    Case("square", lambda o, x: o.squared_(o.copy(x)), [NUMBERS]),
    Case("scale and shift", lambda o, x: o.scale_and_shift_(o.copy(x), 2.0**-3, 0.5), [np.arange(9.0)]),
    Case("scale and add", lambda o, x, y: o.scale_and_add_(o.copy(x), 0.5, y), [NUMBERS, 2.0 - NUMBERS]),
    Case(
        "scale by an array and add",
        lambda o, x, f, y: o.scale_and_add_(o.copy(x), f, y),
        [NUMBERS, np.float64(0.25), 2.0 - NUMBERS],
    ),
    Case("scale rows", lambda o, x: o.scale_(o.copy(x), o.row_maxima(x)), [TABLE]),
    Case("round", lambda o, x: o.rounded_(o.copy(x), o.abs(x) + 0.25, 1.0), [NUMBERS]),
    Case("round to 3 levels", lambda o, x: o.rounded_(o.copy(x), o.abs(x) + 0.25, 3.0), [NUMBERS]),
    Case(
        "keep rows",
        lambda o, x: o.keep_rows_(o.copy(x), o.row_maxima(x) < 3.0),
        [np.float32([[1, 2], [np.inf, 0], [0, np.nan]])],
    ),
    Case("keep all rows", lambda o, x: o.keep_rows_(o.copy(x), o.row_maxima(x) < 99.0), [TABLE]),
    Case("row norms", lambda o, x: o.row_norms(x), [TABLE], 1e-6),
    *(
        Case(f"bits {i} to {i + n}", lambda o, x, i=i, n=n: o.bit_field(x, i, n), [np.int32([0, 1, 77, 2**31 - 1])])
        for i, n in ((0, 23), (3, 4), (23, 8), (30, 1))
    ),
    Case("nonnegative", lambda o, x: o.nonnegative(x), [ODD]),
    Case("nonnegative in half precision", lambda o, x: o.nonnegative(o.cast(x, "float16")), [ODD]),
    Case("thresholds", lambda o, x: o.thresholds("float32", ("w", 3))(0, 11), [NOTHING]),
    Case("thresholds from the middle", lambda o, x: o.thresholds("float64", ("w", 3))(6, 21), [NOTHING]),
    Case(
        "put by pieces", lambda o, x: o.put_by_pieces_(o.copy(x), lambda a, b: o.arange(b - a, "float32"), 2), [TABLE]
    ),
    Case("add by pieces", lambda o, x: o.add_by_pieces_(o.copy(x), lambda a, b: o.flatten(x)[a:b], 2, -0.5), [TABLE]),
    Case("change parts", lambda o, x: o.change_parts_(o.copy(x), [4, 0, 20], lambda i, p: p * (i + 1.0)), [NUMBERS]),
    Case("where", lambda o, x: o.where(x > 0.0, x, -x), [NUMBERS]),
    Case("where with a number", lambda o, x: o.where(x > 0.0, x, 0.1), [NUMBERS.astype(float)]),
    Case("where with numbers", lambda o, x: o.cast(o.where(x > 0.0, 3.0, 4.0), "float32"), [NUMBERS]),
    Case("product", lambda o, x, y: o.matmul(x, y, transpose_b=True), [TABLE, TABLE], 1e-6),
    Case("subtract a product", lambda o, x, y: o.subtract_product_(o.copy(x), y, x), [TABLE, TABLE[:, :4]], 1e-6),
    Case("row maxima", lambda o, x: o.row_maxima(x), [TABLE]),
    Case("kept span", lambda o, x: o.matmul(q := o.orthonormal_rows(x), q, transpose_a=True), [TABLE], 1e-5),
    Case("singular values", lambda o, x: o.svd(x)[1], [TABLE], 1e-6),
    Case("from the triplets", lambda o, x: rebuilt(o, *o.svd(x)), [TABLE], 1e-5),
    *(
        Case(f"pack {n} in {w} bits", lambda o, x, w=w: o.pack(x, w), [(np.arange(n) % 2**w).astype(np.uint8)])
        for w in range(1, 9)
        for n in (0, 1, 8, 19)
    ),
    *(
        Case(
            f"unpack {n} in {w} bits",
            lambda o, x, w=w, n=n: o.unpack(x, w, n),
            [(np.arange(-(-n // 8) * w) * 37 % 256).astype(np.uint8)],
        )
        for w in range(1, 9)
        for n in (0, 1, 8, 19)
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_operation_does_what_numpys_does(case: Case) -> None:
    with np.errstate(all="ignore"):
        expected = case.call(ops_of(np.zeros(1)), *[np.array(x) for x in case.inputs])
    given = [tf.constant(x) for x in case.inputs]
    ops: ArrayOps = ops_of(given[0])
    built = tf.function(lambda *arrays: case.call(ops, *arrays), autograph=False).get_concrete_function(*given)
    for found in (case.call(ops, *given), built(*given)):
        check(found, expected, case.tolerance)
    assert all(shape.is_fully_defined() for shape in tf.nest.flatten(built.output_shapes)), "a shape is left open"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("piecewise", [True, False], ids=["processor", "accelerator"])
def test_torch_does_what_numpy_does(case: Case, piecewise: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in the way that it takes on accelerators, whose memory NumPy cannot share; here on a processor."""
    with np.errstate(all="ignore"):
        expected = case.call(ops_of(np.zeros(1)), *[np.array(x) for x in case.inputs])
    monkeypatch.setattr(TorchOps, "piecewise", piecewise)
    check(case.call(ops_of(torch.zeros(1)), *[torch.tensor(x) for x in case.inputs]), expected, case.tolerance)


def check(found: Any, expected: Any, tolerance: float) -> None:
    if isinstance(expected, list):
        for one, right in zip(found, expected, strict=True):
            check(one, right, tolerance)
        return
    assert (tuple(found.shape), dtype_of(found)) == (np.shape(expected), str(np.asarray(expected).dtype))
    if tolerance == 0.0 and not np.isnan(wide(expected)).any():
        assert bits(found) == bits(expected)
    else:
        scale = np.abs(wide(expected)[np.isfinite(wide(expected))]).max(initial=1e-30)
        np.testing.assert_allclose(wide(found), wide(expected), rtol=0.0, atol=tolerance * scale)


@pytest.mark.parametrize("kind", ["normal", "uniform", "signs", "sample", "thresholds"])
def test_draws_are_numpys_also_by_a_step_that_a_graph_knows(kind: str) -> None:
    """The key has the step in it: a number eagerly, a tensor in a graph that is built once."""
    numpy, tensors = ops_of(np.zeros(1)), ops_of(tf.zeros(1))
    more = (20, 7) if kind == "sample" else ((3, 5), "float32")

    def draw(ops: ArrayOps, step: Any) -> Any:
        if kind == "thresholds":
            return ops.thresholds("float32", (4, "w", step, 1))(3, 18)
        return getattr(ops, kind)(*more, (4, "w", step, 1))

    drawn = tf.function(lambda step: draw(tensors, step), autograph=False)
    for step in (0, 1, 2, 10**10):
        expected = draw(numpy, step)
        assert bits(draw(tensors, step)) == bits(expected)
        found = drawn(tf.constant(step, tf.int64))
        assert (dtype_of(found), bits(found)) == (str(expected.dtype), bits(expected))
    assert drawn.experimental_get_tracing_count() == 1
    assert drawn.get_concrete_function(tf.constant(0, tf.int64)).output_shapes.is_fully_defined()


def test_what_does_not_hold_is_raised_eagerly_and_when_a_graph_runs() -> None:
    ops = ops_of(tf.zeros(1))
    x = tf.constant([1.0, 2.0])
    ops.check(ops.max(x) < 3.0, "fits")
    with pytest.raises(CorruptPayloadError, match="too large"):
        ops.check(ops.max(x) < 2.0, "too large")

    @tf.function(autograph=False)
    def checked(x: Any) -> Any:
        ops.check(ops.max(x) < 2.0, "too large")
        return x + 1.0

    assert wide(checked(tf.constant([1.0, 1.5]))).tolist() == [2.0, 2.5]
    with pytest.raises(tf.errors.InvalidArgumentError, match="too large"):
        checked(x)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_numbers_keep_their_bits_in_every_element_type(dtype: str) -> None:
    """A Python number is rounded once, to the array's own type."""
    x = TENSORFLOW.array(np.ones(3), dtype)
    ops = ops_of(x)
    third = bits(TENSORFLOW.array(np.full(3, 1.0 / 3), dtype))
    assert bits(ops.scale_(x, 1.0 / 3)) == third
    assert bits(ops.add_(x * 0.0, x, 1.0 / 3)) == third
    assert bits(ops.minimum(x, 1.0 / 3)) == third
    assert bits(ops.maximum(x * 0.0, 1.0 / 3)) == third
    assert bits(ops.where(x > 2.0, x, 1.0 / 3)) == third
    assert bits(ops.put_(x, ops.arange(3), 1.0 / 3)) == third
