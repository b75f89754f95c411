"""Law: large work on a processor is one operation of TensorFlow's graph, done by NumPy, which changes nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from cases import TENSORFLOW, bits, wide

from hvd_compress import QSGD, CorruptPayloadError, Spec
from hvd_compress.ops import ArrayOps, NumPyOps, ops_of
from hvd_compress.ops.aligned import copied
from hvd_compress.ops.in_numpy import WORTH

OPS = ops_of(tf.zeros(1))
LARGE = np.random.default_rng(0).standard_normal(WORTH).astype(np.float32)


def doubled(ops: ArrayOps, arrays: Sequence[Any], key: Sequence[Any]) -> Sequence[Any]:
    return [ops.scale_(arrays[0], 2.0)]


def kinds(function: Any) -> list[str]:
    """Return the kinds of operations in the graph of a function."""
    return [operation.type for operation in function.get_concrete_function().graph.get_operations()]


def done_by_numpy(x: Any) -> bool:
    """Return whether NumPy does work on such a tensor in a graph."""

    @tf.function(autograph=False)
    def step() -> Any:
        return OPS.at_once(doubled, [x], [(x.shape, x.dtype.name)], donated=1)[0]

    assert wide(step()).tolist() == (2.0 * wide(x)).tolist()
    return "PyFuncStateless" in kinds(step)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_large_work_is_done_by_numpy(dtype: str) -> None:
    assert done_by_numpy(TENSORFLOW.array(LARGE, dtype))


@pytest.mark.parametrize(("elements", "dtype"), [(WORTH // 4, "float32"), (WORTH, "bfloat16")])
def test_small_work_and_numbers_that_numpy_does_not_know_stay(elements: int, dtype: str) -> None:
    assert not done_by_numpy(TENSORFLOW.array(LARGE[:elements], dtype))


def test_work_stays_where_there_is_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: ["one"] if kind == "GPU" else [])
    assert not done_by_numpy(tf.constant(LARGE))


@pytest.mark.parametrize("in_graph", [False, True])
def test_what_is_donated_keeps_its_numbers(in_graph: bool) -> None:
    """Tensors never change; work may write over what it is donated."""
    x = tf.Variable(LARGE)

    def step() -> Any:
        read = x.read_value()
        return OPS.at_once(doubled, [read], [(read.shape, "float32")], donated=1)[0], read

    made, read = tf.function(step, autograph=False)() if in_graph else step()
    assert np.array_equal(read.numpy(), LARGE)
    assert np.array_equal(x.numpy(), LARGE)
    assert np.array_equal(made.numpy(), 2.0 * LARGE)


def test_work_cannot_write_over_what_it_is_not_donated() -> None:
    @tf.function(autograph=False)
    def step() -> Any:
        return OPS.at_once(doubled, [tf.constant(LARGE)], [(LARGE.shape, "float32")])[0]

    with pytest.raises(tf.errors.InvalidArgumentError, match="read-only"):
        step()


@pytest.mark.parametrize("in_graph", [False, True])
def test_what_work_finds_wrong_is_raised(in_graph: bool) -> None:
    """As `check` does: CorruptPayloadError eagerly, an invalid argument in a graph."""

    def work(ops: ArrayOps, arrays: Sequence[Any], key: Sequence[Any]) -> Sequence[Any]:
        ops.check(ops.max(arrays[0]) < 2.0, "too large")
        return [arrays[0]]

    def step() -> Any:
        return OPS.at_once(work, [tf.constant(LARGE)], [(LARGE.shape, "float32")])[0]

    with pytest.raises(tf.errors.InvalidArgumentError if in_graph else CorruptPayloadError, match="too large"):
        (tf.function(step, autograph=False) if in_graph else step)()


def test_shapes_are_known_and_a_wrong_one_is_an_error() -> None:
    @tf.function(autograph=False)
    def step() -> Any:
        made = OPS.at_once(doubled, [tf.constant(LARGE)], [((7,), "float32")], donated=1)[0]
        assert made.shape == (7,)
        return made

    with pytest.raises(tf.errors.InvalidArgumentError, match="not compatible"):
        step()


def test_a_key_may_be_known_only_when_the_graph_runs() -> None:
    codec, spec, numpy_ops = QSGD(bucket=128), Spec((WORTH,)), NumPyOps()

    @tf.function(autograph=False)
    def encoded(step: Any) -> Any:
        return codec.encode(tf.constant(LARGE), OPS, ("name", step, 1))

    for number in (0, 3):
        expected = codec.encode(LARGE, numpy_ops, ("name", number, 1))
        found = encoded(tf.constant(number, tf.int64))
        assert [bits(x) for x in found] == [bits(x) for x in expected]
        assert bits(codec.decode(found, spec, OPS)) == bits(codec.decode(expected, spec, numpy_ops))
    assert encoded.experimental_get_tracing_count() == 1


def test_numbers_that_are_not_finite_are_no_reason_to_warn() -> None:
    spoilt = LARGE.copy()
    spoilt[5] = np.inf

    @tf.function(autograph=False)
    def step() -> Any:
        return OPS.at_once(lambda ops, x, key: [x[0] - x[0]], [tf.constant(spoilt)], [(LARGE.shape, "float32")])[0]

    assert np.isnan(step().numpy()).sum() == 1  # warnings are errors


@pytest.mark.parametrize("shape", [(), (3,), (0,), (5, 0), (WORTH,), (WORTH // 8, 3)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "uint8"])
def test_large_memory_begins_where_tensorflow_can_take_it_over(shape: tuple[int, ...], dtype: str) -> None:
    ops = NumPyOps()
    for made in (ops.zeros(shape, dtype), ops.copy(ops.zeros(shape, dtype)), copied(np.zeros(shape, dtype).T)):
        assert made.dtype == np.dtype(dtype)
        assert made.flags.c_contiguous and made.flags.writeable
        assert not made.any()
        assert made.nbytes < WORTH or made.ctypes.data % 64 == 0
    assert ops.zeros(shape, dtype).shape == ops.copy(ops.zeros(shape, dtype)).shape == shape
