"""Law: large work on a processor is one operation of TensorFlow's graph, done by NumPy, which changes nothing else."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from cases import TENSORFLOW, bits, wide

from hvd_compress import QSGD, ConfigurationError, CorruptPayloadError, CountSketch, Spec, TopK
from hvd_compress.codecs.positions import from_wire
from hvd_compress.contract import Codec, Context
from hvd_compress.ops import ArrayOps, NumPyOps, in_numpy, ops_of
from hvd_compress.ops.aligned import LARGE_BYTES, copied
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


@pytest.mark.parametrize(("value", "expected"), [("0", False), ("1", True), ("", True)])
def test_the_user_may_leave_all_work_to_tensorflow(value: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(in_numpy.SWITCH, value)
    assert in_numpy.allowed() is expected
    assert done_by_numpy(tf.constant(LARGE)) is expected


def test_another_value_of_the_switch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(in_numpy.SWITCH, "no")
    with pytest.raises(ConfigurationError, match="HVD_COMPRESS_NUMPY='no' is neither 0 nor 1; set it to 1"):
        in_numpy.allowed()


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


def test_a_number_is_an_array_too() -> None:
    """Work changes what it is donated in place, whatever its shape."""

    def work(ops: ArrayOps, arrays: Sequence[Any], key: Sequence[Any]) -> Sequence[Any]:
        ops.add_by_pieces_(arrays[0], lambda start, stop: arrays[1], 1)
        return [arrays[0]]

    def step(x: Any) -> Any:
        return in_numpy.done(work, [x, tf.ones((1,))], [((), "float32")], (), 1)[0]

    for call in (step, tf.function(step, autograph=False)):
        assert call(tf.constant(2.0)).numpy() == 3.0


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


def applied(number: Any, x: Any) -> Any:
    """Return the mean of a count sketch of x alone."""
    sketch = CountSketch(k=5, columns=64, min_size=0)
    exchange = sketch.exchange(x, {}, Context(OPS, Spec(tuple(x.shape)), "name", number, 0, 1, spare=x + 1.0))
    answers = None
    while True:
        try:
            answers = [request.array for request in exchange.send(answers)]
        except StopIteration as end:
            return end.value.mean


KEPT: dict[str, Callable[[Any, Any], Any]] = {
    "codec": lambda number, x: QSGD().encode(x, OPS, ("name", number)),
    "sampled": lambda number, x: TopK(0.01, "sampled").encode(x, OPS, ("name", number)),
    "put": lambda number, x: OPS.put_(OPS.flatten(x), tf.constant([2, 5], tf.int64), 0.0),
    "add at": lambda number, x: OPS.add_at_(OPS.flatten(x), tf.constant([2, 5], tf.int64), tf.ones(2)),
    "largest": lambda number, x: OPS.largest(OPS.flatten(x), 9),
    "drawn": lambda number, x: x + OPS.uniform(x.shape, "float32", ("name", number)),
    "sketch": applied,
}


@pytest.mark.parametrize("use", list(KEPT.values()), ids=list(KEPT))
def test_a_graph_that_nobody_uses_is_freed(use: Callable[[Any, Any], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow keeps every function that a graph may call for good; with it, nothing else."""
    monkeypatch.setattr(in_numpy, "WORTH", 0)
    graph, variable = _traced(use)
    gc.collect()
    assert graph() is None
    assert variable() is None


def _traced(use: Callable[[Any, Any], Any]) -> tuple[weakref.ref[Any], weakref.ref[Any]]:
    """Run a graph that works on a variable once; return references to both."""
    x = tf.Variable(LARGE[:4096].reshape(64, 64))

    @tf.function(autograph=False)
    def step(number: Any) -> Any:
        return use(number, x.read_value())

    concrete = step.get_concrete_function(tf.constant(3, tf.int64))
    assert "PyFuncStateless" in [operation.type for operation in concrete.graph.get_operations()]
    concrete(tf.constant(3, tf.int64))
    return weakref.ref(concrete.graph), weakref.ref(x)


@pytest.mark.parametrize("position", [-4097, -1, 4096])
def test_positions_that_are_no_positions_are_an_invalid_argument(
    position: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However they are noticed first: by what checks them, or by what would use them."""
    monkeypatch.setattr(in_numpy, "WORTH", 0)

    @tf.function(autograph=False)
    def step(positions: Any) -> Any:
        return OPS.put_(tf.constant(LARGE[:4096]), from_wire(positions, 4096, OPS), 0.0)

    for _ in range(20):
        with pytest.raises(tf.errors.InvalidArgumentError):
            step(tf.constant([5, position, 7], tf.int32))


def test_shapes_are_known_and_a_wrong_one_is_an_error() -> None:
    @tf.function(autograph=False)
    def step() -> Any:
        made = OPS.at_once(doubled, [tf.constant(LARGE)], [((7,), "float32")], donated=1)[0]
        assert made.shape == (7,)
        return made

    with pytest.raises(tf.errors.InvalidArgumentError, match="not compatible"):
        step()


@pytest.mark.parametrize("codec", [QSGD(bucket=128), TopK(0.01, "sampled")], ids=["qsgd", "sampled"])
def test_a_key_may_be_known_only_when_the_graph_runs(codec: Codec, where_work_is_done: str) -> None:
    """What is drawn follows it, and is what NumPy draws eagerly."""
    spec, numpy_ops = Spec((WORTH,)), NumPyOps()
    # One in 64 is a sample: all are alike, and the threshold is what there is at the place where it begins.
    x = np.resize(np.arange(64, dtype=np.float32), WORTH)

    @tf.function(autograph=False)
    def encoded(step: Any) -> Any:
        return codec.encode(tf.constant(x), OPS, ("name", step, 1))

    seen = set()
    for number in range(4):
        expected = codec.encode(x, numpy_ops, ("name", number, 1))
        found = encoded(tf.constant(number, tf.int64))
        assert bits(found[0]) == bits(expected[0])
        for part, right in zip(found[1:], expected[1:], strict=True):
            np.testing.assert_allclose(wide(part), wide(right), rtol=1e-6)
        seen.add(bits(found[0]))
        np.testing.assert_allclose(wide(codec.decode(found, spec, OPS)), codec.decode(expected, spec, numpy_ops), 1e-6)
    assert len(seen) > 1
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
    transposed = np.zeros(shape, dtype).T
    for made in (ops.zeros(shape, dtype), ops.copy(ops.zeros(shape, dtype)), copied(transposed)):
        assert made.dtype == np.dtype(dtype)
        assert made.flags.c_contiguous and made.flags.writeable
        assert not made.any()
        assert made.nbytes < LARGE_BYTES or made.ctypes.data % 64 == 0
    assert ops.zeros(shape, dtype).shape == ops.copy(ops.zeros(shape, dtype)).shape == shape
    assert copied(transposed).shape == transposed.shape
