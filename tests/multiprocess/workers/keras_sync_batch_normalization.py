"""hvd.SyncBatchNormalization on Keras 3 is BatchNormalization of one process on the batches of all ranks, joined."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import horovod.tensorflow as stock
import keras
import numpy as np
import tensorflow as tf

import hvd_compress.keras as hvd
import hvd_compress.tensorflow as hvd_tensorflow
from hvd_compress import ConfigurationError

from .harness import check
from .tensorflow_common import assert_close, assert_equal_on_ranks, gathered, raises

FEATURES = 3
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "image": {"momentum": 0.5, "epsilon": 0.1},
    "channels-first": {"axis": 1},
    "ragged": {},
    "offset": {},
    "mask": {},
    "one-feature-mask": {},
    "renorm": {"renorm": True},
    "half": {"dtype": "float16"},
}


def _batch(case: str, rank: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Return a rank's batch, unlike those of the others in place, width and perhaps size, and its mask."""
    draw = np.random.default_rng([7, rank])
    rows = 2 + 3 * rank if case == "ragged" else 4
    shape: tuple[int, ...] = (rows, FEATURES)
    if case == "image":
        shape = (rows, 5, 2, FEATURES)
    elif case == "channels-first":
        shape = (rows, FEATURES, 5)
    elif "mask" in case:
        shape = (rows, 6, 1 if "one" in case else FEATURES)
    x = draw.standard_normal(shape) * (1.0 + rank) + 2.0 * rank
    if case == "offset":  # squares of these have no digit left for the variance
        x += 3e4
    mask = draw.random(shape[:-1]) < 0.3 + 0.3 * rank if "mask" in case else None
    return x.astype("float32"), mask


def _run(layer: Any, x: Any, mask: Any, weights: Any, traced: bool) -> dict[str, Any]:
    """Return what a step of training gives: outputs, and gradients of the sum of outputs in these proportions."""
    options = {} if mask is None else {"mask": tf.constant(mask)}

    def step(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, Any]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True, **options)
            value = tf.reduce_sum(tf.cast(y, tf.float32) * weights)
        by_input, by_variables = tape.gradient(value, [x, [v.value for v in layer.trainable_variables]])
        return y, by_input, by_variables

    y, by_input, by_variables = (tf.function(step) if traced else step)(tf.constant(x))
    return {"output": y, "input": by_input, "variables": by_variables}


@check(cases=[f"{case}-{mode}" for case in OPTIONS for mode in ("traced", "eager")])
def equals_one_process_on_the_joined_batch(case: str) -> None:
    case, mode = case.rsplit("-", 1)
    ranks = range(stock.size())
    batches = [_batch(case, rank) for rank in ranks]
    proportions = [np.random.default_rng([8, r]).standard_normal(x.shape) for r, (x, _) in enumerate(batches)]
    whole = np.concatenate([x for x, _ in batches])
    whole_mask = None if batches[0][1] is None else np.concatenate([m for _, m in batches])
    ours, plain = hvd.SyncBatchNormalization(**OPTIONS[case]), keras.layers.BatchNormalization(**OPTIONS[case])
    for layer in (ours, plain):
        layer.build(whole.shape)
    x, mask = batches[stock.rank()]
    if stock.rank() == 0:
        for _ in range(2):  # names of what Keras numbers differ between ranks from now on
            keras.layers.BatchNormalization()
            hvd.SyncBatchNormalization()
    for _ in range(2):  # the second step starts from the statistics that the first one leaves
        found = _run(ours, x, mask, proportions[stock.rank()], mode == "traced")
        expected = _run(plain, whole, whole_mask, np.concatenate(proportions), mode == "traced")
    rows = slice(*np.cumsum([0, *(len(x) for x, _ in batches)])[stock.rank() : stock.rank() + 2])
    tolerance = {"half": 4e-3, "offset": 2e-2}.get(case, 2e-5)
    for name in ("output", "input"):
        assert_close({name: found[name]}, {name: expected[name][rows]}, tolerance)
    sums = [tf.add_n([tf.constant(g) for g in parts]) for parts in zip(*gathered(_arrays(found)), strict=True)]
    for i, right in enumerate(expected["variables"]):
        assert_close({f"variable {i}": sums[i]}, {f"variable {i}": right}, tolerance)
    statistics = {str(i): v.value for i, v in enumerate(ours.non_trainable_variables)}
    assert_close(statistics, {str(i): v.value for i, v in enumerate(plain.non_trainable_variables)}, tolerance)
    assert_equal_on_ranks(statistics)


def _arrays(found: dict[str, Any]) -> list[np.ndarray]:
    return [g.numpy() for g in found["variables"]]


def _model(layer: Any) -> keras.Model:
    start = keras.initializers.RandomNormal(seed=4)
    layers = [keras.layers.Input((6,))]
    for width in (5, 4):
        layers += [keras.layers.Dense(width, activation="tanh", kernel_initializer=start), layer()]
    return keras.Sequential([*layers, keras.layers.Dense(2, kernel_initializer=start)])


def _data(rank: int) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng([9, rank]).standard_normal((3, 4, 6)).astype("float32") * (1.0 + rank)
    return x, x[..., :2] + rank


@check(cases=[1, 3])
def fit_equals_one_process_on_joined_batches(steps_per_execution: int) -> None:
    """Several such layers, in the graphs of `fit`: weights and statistics are those of one process."""
    if stock.rank() == 0:
        hvd.SyncBatchNormalization()  # names of layers differ between ranks
    made, alone = _model(hvd.SyncBatchNormalization), _model(keras.layers.BatchNormalization)
    optimizer = hvd.DistributedOptimizer(keras.optimizers.SGD(0.05))
    made.compile(optimizer, "mse", jit_compile=False, steps_per_execution=steps_per_execution)
    alone.compile(keras.optimizers.SGD(0.05), "mse", jit_compile=False)
    joined = [np.concatenate(parts, axis=1) for parts in zip(*map(_data, range(stock.size())), strict=True)]
    for model, (x, y) in ((made, _data(stock.rank())), (alone, joined)):
        rows = x.shape[1]
        model.fit(x.reshape(-1, 6), y.reshape(-1, 2), batch_size=rows, shuffle=False, verbose=0)
    found = {str(i): v.value for i, v in enumerate(made.weights)}
    assert_close(found, {str(i): v.value for i, v in enumerate(alone.weights)}, 1e-4)
    assert_equal_on_ranks(found)
    if stock.rank() == 0:  # what does not train waits for nobody
        made.predict(_data(0)[0][0], verbose=0)
        made.evaluate(*(part[0] for part in _data(0)), verbose=0)


@check()
def it_is_saved_and_named() -> None:
    assert hvd_tensorflow.SyncBatchNormalization is hvd.SyncBatchNormalization
    made = _model(lambda: hvd.SyncBatchNormalization(momentum=0.25))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # What Keras itself meets when it saves variables of TensorFlow under NumPy 2.
        warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy keyword", DeprecationWarning)
        made.save(Path(folder) / "model.keras")
        loaded = keras.models.load_model(Path(folder) / "model.keras")
    assert type(loaded.layers[1]) is hvd.SyncBatchNormalization and loaded.layers[1].momentum == 0.25
    for fused in (True, None):
        with raises(ConfigurationError, f"fused={fused}"):
            hvd.SyncBatchNormalization(fused=fused)
