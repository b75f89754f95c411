"""hvd.load_model for tf_keras: whatever the format and the kind of optimizer, what is loaded trains on all ranks."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import horovod.tensorflow as stock
import numpy as np
import tensorflow as tf

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what tf_keras says of its own imports
    import tf_keras

import hvd_compress.tensorflow as hvd
from hvd_compress import ConfigurationError, Identity, PowerSGD
from hvd_compress.tensorflow.keras.for_tf_keras import load_model

from .harness import check
from .tensorflow_common import assert_close, assert_equal_on_ranks, assert_same_bits, bits, gathered, raises

RATE = 0.05
FORMATS = ("model.keras", "model.h5", "saved-model")
KINDS: dict[str, Callable[[], Any]] = {
    "new": lambda: tf_keras.optimizers.SGD(RATE, momentum=0.9),
    "legacy": lambda: tf_keras.optimizers.legacy.SGD(RATE, momentum=0.9),
    "scaled": lambda: tf_keras.mixed_precision.LossScaleOptimizer(
        tf_keras.optimizers.SGD(RATE, momentum=0.9), dynamic=False, initial_scale=8
    ),
}
CASES = [f"{kind}-{name}" for kind in KINDS for name in FORMATS]


class OwnSGD(tf_keras.optimizers.SGD):
    """Of a class that tf_keras does not know."""


class OwnDense(tf_keras.layers.Dense):
    """Of a class that tf_keras does not know."""


def _model(optimizer: Any, layer: Any = tf_keras.layers.Dense) -> Any:
    """Return the same model wherever it is made."""
    start = tf_keras.initializers.RandomNormal(seed=3)
    layers = [
        tf_keras.layers.Input((6,)),
        layer(8, activation="tanh", kernel_initializer=start),
        tf_keras.layers.Dense(3, kernel_initializer=start),
    ]
    model = tf_keras.Sequential(layers)
    model.compile(optimizer, "mse")
    return model


def _distributed(optimizer: Any, compression: Any = None) -> Any:
    return hvd.DistributedOptimizer(optimizer, compression=compression, allow_larger=True)


def _batches(first: int, steps: int, rank: int) -> tuple[np.ndarray, np.ndarray]:
    parts = [np.random.default_rng([23, step, rank]).standard_normal((4, 6)) for step in range(first, first + steps)]
    x = np.concatenate(parts).astype("float32")
    return x, x[:, :3] * 2.0 + 1.0


def _fit(model: Any, first: int, steps: int) -> None:
    x, y = _batches(first, steps, stock.rank())
    model.fit(x, y, batch_size=4, shuffle=False, verbose=0)


def _weights(model: Any) -> dict[str, Any]:
    return {str(i): tf.constant(v.numpy()) for i, v in enumerate(model.trainable_variables)}


def _save(model: Any, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tf_keras calls some of its formats old
        model.save(path, save_format="tf" if path.suffix == "" else None)


def _load(path: Path, *args: Any, **options: Any) -> Any:
    options.setdefault("allow_larger", True)
    options.setdefault("compression_state", False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # of tf_keras and h5py under NumPy 2
        return load_model(path, *args, **options)


@contextmanager
def _folder() -> Iterator[Path]:
    """Give all ranks, on one machine, the same empty folder, until all have left the block."""
    with tempfile.TemporaryDirectory() as own:
        yield Path(gathered(own)[0])
        gathered("left")


@check(cases=CASES)
def a_loaded_optimizer_is_distributed(case: str) -> None:
    """The file of one rank, loaded on all, trains as what tf_keras loads does once it is made distributed by hand."""
    kind, name = case.split("-", 1)
    made = _model(_distributed(KINDS[kind]()))
    _fit(made, 0, 2)
    with _folder() as folder:
        if stock.rank() == 0:
            _save(made, folder / name)
        gathered("saved")
        loaded = _load(folder / name)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            by_hand = tf_keras.models.load_model(folder / name)
    _distributed(by_hand.optimizer)
    assert type(loaded.optimizer) is type(made.optimizer)
    assert_same_bits(_weights(loaded), _weights(made))
    for model in (loaded, by_hand):
        _fit(model, 2, 3)
    assert_same_bits(_weights(loaded), _weights(by_hand))
    assert_equal_on_ranks(_weights(loaded))
    inner = getattr(loaded.optimizer, "inner_optimizer", loaded.optimizer)
    assert int(inner.exchange.exchange.step) == 3
    if case in ("new-model.keras", "new-model.h5", "legacy-model.h5", "scaled-model.keras"):  # where momenta are saved
        _fit(made, 2, 3)
        assert_close(_weights(loaded), _weights(made), 1e-6)


@check(cases=FORMATS)
def a_loaded_optimizer_compresses(name: str) -> None:
    compressor = PowerSGD(rank=1)
    made = _model(_distributed(tf_keras.optimizers.SGD(RATE), compressor))
    _fit(made, 0, 2)
    assert int(made.optimizer.exchange.exchange.step) == 2
    with _folder() as folder:
        if stock.rank() == 0:
            _save(made, folder / name)
        gathered("saved")
        loaded = _load(folder / name, compression=compressor)
        plain = _load(folder / name)
        # Files hold no compression state: who does not say that it is meant is told.
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            _load(folder / name, None, None, "powersgd", compression_state=True)
            _load(folder / name, None, None, None, False, compression_state=True)
    told = [str(w.message) for w in found if w.category is UserWarning]
    assert sum("brings no compression state" in text and "compression_state=False" in text for text in told) == 1, told
    _fit(loaded, 2, 3)
    _fit(plain, 2, 3)
    assert loaded.optimizer.exchange.exchange.plan.compressor == compressor
    assert plain.optimizer.exchange.exchange.plan.compressor == Identity()
    assert int(loaded.optimizer.exchange.exchange.step) == 3
    assert_equal_on_ranks(_weights(loaded))
    assert any(bits(a) != bits(b) for a, b in zip(_weights(loaded).values(), _weights(plain).values(), strict=True))


@check(cases=FORMATS)
def classes_of_the_user_are_known(name: str) -> None:
    made = _model(_distributed(OwnSGD(RATE)), OwnDense)
    with _folder() as folder:
        if stock.rank() == 0:
            _save(made, folder / name)
        gathered("saved")
        loaded = _load(folder / name, [OwnSGD], {"OwnDense": OwnDense})
    assert type(loaded.optimizer) is OwnSGD and type(loaded.layers[0]) is OwnDense
    _fit(loaded, 0, 2)
    assert_equal_on_ranks(_weights(loaded))


@check(cases=FORMATS)
def a_file_loads_without_us(name: str) -> None:
    made = _model(_distributed(tf_keras.optimizers.SGD(RATE), PowerSGD(rank=1)))
    _fit(made, 0, 2)
    with tempfile.TemporaryDirectory() as own:
        _save(made, Path(own) / name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = tf_keras.models.load_model(Path(own) / name)
    assert not hasattr(loaded.optimizer, "register_local_var")
    assert_same_bits(_weights(loaded), _weights(made))
    if stock.rank() == 0:  # nothing waits for other ranks
        _fit(loaded, 2, 1)


@check(cases=FORMATS)
def a_model_without_optimizer_is_refused(name: str) -> None:
    made = tf_keras.Sequential([tf_keras.layers.Input((2,)), tf_keras.layers.Dense(1)])
    with tempfile.TemporaryDirectory() as own:
        _save(made, Path(own) / name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tf_keras says that the model is not compiled
            with raises(ConfigurationError, name, "without an optimizer"):
                _load(Path(own) / name)
