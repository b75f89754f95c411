"""What the checks with TensorFlow share: gradients, exchanges, and comparisons within and across ranks.

Nothing here imports torch: a process of these launches has only Horovod's TensorFlow side initialised.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import horovod.tensorflow as stock
import numpy as np
import tensorflow as tf

from hvd_compress.drivers.settings import ExchangeSettings
from hvd_compress.tensorflow.gradient_exchange import GradientExchange

# Every kind of shape: matrices that rank 2 compresses, ones too small for it, vectors, a scalar, nothing at all.
SHAPES: dict[str, tuple[int, ...]] = {
    "scalar": (),
    "bias": (7,),
    "matrix": (24, 18),
    "twin": (24, 18),
    "conv": (3, 3, 8, 12),
    "odd": (5, 3),
    "wide": (2, 31),
    "tall": (33, 2),
    "empty": (0,),
    "hollow": (3, 0),
}
# Rounding of one exchange, relative to the largest number in it, with room for sums in another order.
ROUNDING = {"float64": 1e-13, "float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}
ONE_BUCKET = 1e12

Tensors = Mapping[str, Any]


def gradients(
    step: int,
    shapes: Mapping[str, tuple[int, ...]] = SHAPES,
    dtype: str = "float32",
    size: int | None = None,
) -> list[dict[str, tf.Tensor]]:
    """Return the gradients of all ranks, different for every step and rank, the same wherever they are computed."""
    made = []
    for rank in range(stock.size() if size is None else size):
        draw = np.random.default_rng([17, step, rank])
        made.append({name: tf.cast(draw.standard_normal(shape), dtype) for name, shape in shapes.items()})
    return made


def settings(**changes: Any) -> ExchangeSettings:
    """Return settings; tensors are small here: they are compressed also where that sends more than a plain average."""
    plain: dict[str, Any] = {
        "average": True,
        "gradient_predivide_factor": 1.0,
        "sparse_as_dense": False,
        "bucket_bytes": ONE_BUCKET,
        "check_replicas_every": 0,
        "allow_larger": True,
    }
    return ExchangeSettings(**(plain | changes))


def made_exchange(
    compressor: Any, like: Tensors, process_set: Any = stock.global_process_set, **changes: Any
) -> GradientExchange:
    """Return an exchange for gradients like these."""
    return GradientExchange(like, compressor, settings(**changes), process_set)


def mean_of(all_gradients: Sequence[Tensors]) -> dict[str, np.ndarray]:
    """Return the mean over ranks, in float64."""
    return {name: np.mean([as_float64(own[name]) for own in all_gradients], axis=0) for name in all_gradients[0]}


def as_float64(x: Any) -> np.ndarray:
    """Return a tensor, variable or array as NumPy's float64."""
    return np.asarray(tf.cast(tf.convert_to_tensor(x), tf.float64).numpy())


def assert_close(actual: Tensors, expected: Tensors, tolerance: float | None = None) -> None:
    """Check names, shapes, and numbers to within `tolerance` (rounding by default) x the largest number expected."""
    assert actual.keys() == expected.keys(), f"{sorted(actual)} is not {sorted(expected)}"
    for name, right in expected.items():
        found, wanted = as_float64(actual[name]), as_float64(right)
        assert found.shape == wanted.shape, f"{name}: shape {found.shape} is not {wanted.shape}"
        if wanted.size == 0:
            continue
        allowed = ROUNDING[tf.convert_to_tensor(actual[name]).dtype.name] if tolerance is None else tolerance
        error, scale = float(np.abs(found - wanted).max()), float(np.abs(wanted).max())
        assert error <= allowed * scale, f"{name}: off by {error:g}, allowed {allowed * scale:g}"


def assert_same_bits(actual: Tensors, expected: Tensors) -> None:
    """Check that nothing differs in a single bit."""
    assert actual.keys() == expected.keys(), f"{sorted(actual)} is not {sorted(expected)}"
    for name, right in expected.items():
        assert bits(actual[name]) == bits(right), f"{name}: {actual[name]} is not {right}"


def assert_equal_on_ranks(tensors: Tensors) -> None:
    """Check that every rank holds the same bits; called by all ranks."""
    everyone = gathered({name: bits(x) for name, x in tensors.items()})
    for rank, other in enumerate(everyone):
        differ = sorted(name for name in everyone[0] if other.get(name) != everyone[0][name])
        assert other.keys() == everyone[0].keys() and not differ, f"ranks 0 and {rank} differ in {differ}"


def gathered(item: Any) -> list[Any]:
    """Return one small picklable object of every rank, by rank; called by all ranks."""
    data = np.frombuffer(pickle.dumps(item), np.uint8)
    lengths = stock.allgather(tf.constant([len(data)]), name="gathered.length").numpy()
    joined = stock.allgather(tf.constant(data), name="gathered.data").numpy()
    return [pickle.loads(part.tobytes()) for part in np.split(joined, np.cumsum(lengths)[:-1])]


def bits(x: Any) -> tuple[str, tuple[int, ...], bytes]:
    """Return element type, shape and bytes."""
    tensor = tf.convert_to_tensor(x)
    return tensor.dtype.name, tuple(tensor.shape), np.ascontiguousarray(tensor.numpy()).tobytes()


@contextmanager
def raises(error: type[BaseException], *fragments: str) -> Iterator[None]:
    """Check that the block raises exactly this kind of error, with these words in its message."""
    try:
        yield
    except error as raised:
        assert type(raised) is error, f"{type(raised).__name__} is not {error.__name__}: {raised}"
        missing = [f for f in fragments if f not in str(raised)]
        assert not missing, f"{missing} is not in the message {str(raised)!r}"
        return
    raise AssertionError(f"{error.__name__} was not raised")


@contextmanager
def counted_collectives() -> Iterator[dict[str, int]]:
    """Count the collectives, and the bytes handed to them, that run in graphs built within the block."""
    counts = {"collectives": 0, "bytes": 0}

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(tensor: tf.Tensor, *args: Any, **kwargs: Any) -> Any:
            def count() -> np.int32:
                counts["collectives"] += 1
                counts["bytes"] += tensor.shape.num_elements() * tensor.dtype.size
                return np.int32(0)

            # Not when the graph is built: a branch that is built need not be taken.
            with tf.control_dependencies([tf.numpy_function(count, [], tf.int32)]):
                tensor = tf.identity(tensor)
            return function(tensor, *args, **kwargs)

        return counted

    plain = {name: getattr(stock, name) for name in ("allreduce", "allgather", "alltoall", "broadcast")}
    try:
        for name, function in plain.items():
            setattr(stock, name, counting(function))
        yield counts
    finally:
        for name, function in plain.items():
            setattr(stock, name, function)


def traced_once(exchange: GradientExchange) -> Callable[..., dict[str, Any]]:
    """Return the exchange as a step of a graph, which fails when it would be built a second time."""
    traces = 0

    @tf.function(autograph=False)
    def step(gradients: Tensors, parameters: Tensors, rate: tf.Tensor) -> dict[str, Any]:
        nonlocal traces
        traces += 1
        assert traces == 1, "the graph was built a second time"
        return exchange(gradients, parameters, rate)

    return step
