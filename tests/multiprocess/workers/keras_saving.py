"""Compression state in `.keras` files and in TensorFlow's checkpoints."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import horovod.tensorflow as stock
import keras
import numpy as np
import tensorflow as tf

import hvd_compress.keras as hvd
import hvd_compress.keras.saving
from hvd_compress import QSGD, AllGather, BlockSign, ConfigurationError, DistEFBlockSGD, PowerSGD, ScaleCom

from .harness import check
from .keras_models import compiled, distributed, fit, memory, model, weights
from .tensorflow_common import assert_equal_on_ranks, assert_same_bits, gathered, raises

optimizers = keras.optimizers

COMPRESSORS = {
    "powersgd": PowerSGD(rank=2),
    "scalecom": ScaleCom(chunk=4, min_size=0),
    "dist-ef": DistEFBlockSGD(BlockSign(block=256)),
    "qsgd": AllGather(QSGD()),
}


def _save(made: keras.Model, path: Path) -> None:
    with warnings.catch_warnings():
        # Keras itself turns its variables into arrays in a way that this NumPy warns of.
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        made.save(path)


def _adam() -> Any:
    return optimizers.Adam(0.05)


def _scaled() -> Any:
    return optimizers.LossScaleOptimizer(_adam(), initial_scale=64.0)


def _trained(compressor: Any, plain: Callable[[], Any] = _adam) -> keras.Model:
    made = compiled(model(), distributed(plain(), compressor))
    fit(made, 3)
    return made


def _everything(made: keras.Model) -> dict[str, Any]:
    return {**weights(made), **memory(made.optimizer)}


def _loaded(path: Path, compression: Any, **options: Any) -> keras.Model:
    return hvd.load_model(path, compression=compression, allow_larger=True, **options)


@check(cases=COMPRESSORS)
def a_loaded_model_goes_on_as_if_uninterrupted(name: str) -> None:
    _goes_on(COMPRESSORS[name], _adam)


@check()
def a_loaded_model_with_loss_scaling_goes_on_as_if_uninterrupted() -> None:
    _goes_on(PowerSGD(rank=2), _scaled)


def _goes_on(compressor: Any, plain: Callable[[], Any]) -> None:
    made = _trained(compressor, plain)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        _save(made, path)
        fit(made, 3, first=3)
        expected = _everything(made)
        loaded = _loaded(path, compressor)
        # It can be saved again before its first step.
        again = Path(folder) / "again.keras"
        _save(loaded, again)
        other = _loaded(again, compressor)
        fit(other, 3, first=3)
    assert_same_bits(_everything(other), expected)
    assert_equal_on_ranks(weights(made))


@check(cases=["adam", "loss-scale"])
def a_file_loads_without_us(plain: str) -> None:
    made = _trained(PowerSGD(rank=2), {"adam": _adam, "loss-scale": _scaled}[plain])
    before = compiled(model(), {"adam": _adam, "loss-scale": _scaled}[plain]())
    assert type(made.optimizer) is type(before.optimizer)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        _save(made, path)
        loaded = keras.models.load_model(path)
    assert_same_bits(weights(loaded), weights(made))
    for found, right in zip(loaded.optimizer.variables, made.optimizer.variables, strict=True):
        assert_same_bits({"": tf.constant(found.numpy())}, {"": tf.constant(right.numpy())})
    assert not hasattr(loaded.optimizer, "variable_exchange")
    if stock.rank() == 0:  # nothing waits for other ranks
        fit(loaded, 1, first=3)


@check(min_ranks=2)
def the_file_of_another_rank_is_refused_on_all_ranks() -> None:
    made = _trained(PowerSGD(rank=2))
    with tempfile.TemporaryDirectory() as folder:
        path = _shared(Path(folder))
        if stock.rank() == 0:
            _save(made, path)
        gathered("saved")
        loaded = _loaded(path, PowerSGD(rank=2))
        with raises(ConfigurationError, "Rank 1", "rank=0", "compression_state=False"):
            fit(loaded, 1)
        fresh = _loaded(path, PowerSGD(rank=2), compression_state=False)
        fit(fresh, 1, first=3)
        assert fresh.optimizer.variable_exchange.exchange.step == 1
        assert_equal_on_ranks(weights(fresh))
        gathered("used")


@check(min_ranks=2, cases=[None, "bfloat16"])
def without_local_state_the_file_of_one_rank_is_for_all(compression: Any) -> None:
    made = _trained(compression)
    with tempfile.TemporaryDirectory() as folder:
        path = _shared(Path(folder))
        if stock.rank() == 0:
            _save(made, path)
        gathered("saved")
        loaded = _loaded(path, compression)
        gathered("loaded")
    fit(made, 2, first=3)
    fit(loaded, 2, first=3)
    assert_same_bits(weights(loaded), weights(made))
    assert loaded.optimizer.variable_exchange.exchange.step == 5


@check(cases=["sums", "means"])
def a_loaded_model_accumulates_as_before(how: str) -> None:
    """Also without compression state, and where the compressor has none."""
    for compression in (None, PowerSGD(rank=2)):
        plain = optimizers.SGD(0.1)
        options = {"backward_passes_per_step": 2, "average_aggregated_gradients": how == "means"}
        made = compiled(model(), distributed(plain, compression, **options))
        fit(made, 4)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.keras"
            _save(made, path)
            loaded = _loaded(path, compression)
            fresh = _loaded(path, compression, compression_state=False)
            other = _loaded(path, compression, backward_passes_per_step=2, average_aggregated_gradients=how == "sums")
        fit(made, 2, first=4)
        fit(loaded, 2, first=4)
        assert_same_bits(weights(loaded), weights(made))
        assert fresh.optimizer.hvd_compress.factor is not None
        if compression is None:
            fit(fresh, 2, first=4)
            assert_same_bits(weights(fresh), weights(made))
            fit(other, 2, first=4)
            name = "last/kernel"
            assert not np.allclose(weights(other)[name], weights(made)[name], rtol=1e-3)
        if how == "sums":
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.h5"
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    made.save(path)
                    with raises(ConfigurationError, "model.h5", "backward_passes_per_step=2"):
                        hvd.load_model(path, compression=compression, compression_state=False)


@check(cases=["own", "all", "first"])
def weights_files_are_loaded_before_training(who: str) -> None:
    """Every rank its own file goes on from its residuals; the file of one rank is for all, or is broadcast."""
    made = _trained(PowerSGD(rank=2))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "own.weights.h5" if who == "own" else _shared(Path(folder)).with_suffix(".weights.h5")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
            if who == "own" or stock.rank() == 0:
                made.save_weights(path)
        gathered("saved")
        fresh = compiled(model(), distributed(_adam(), PowerSGD(rank=2)))
        fresh.optimizer.build(fresh.trainable_variables)
        if who != "first" or stock.rank() == 0:
            fresh.load_weights(path)
        gathered("loaded")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(fresh, 2, first=3, callbacks=[hvd.callbacks.BroadcastGlobalVariablesCallback(0)])
    told = [str(w.message) for w in caught if "residuals start at zero" in str(w.message)]
    assert len(told) == (0 if who == "own" or stock.size() == 1 else 1), [str(w.message) for w in caught]
    assert_equal_on_ranks(weights(fresh))
    fit(made, 2, first=3)
    if who == "own":
        assert_same_bits(weights(fresh), weights(made))
    assert fresh.optimizer.variable_exchange.exchange.step == (2 if told else 5)


@check()
def saved_models_load_where_horovod_is_not() -> None:
    made = _trained(PowerSGD(rank=2))
    with tempfile.TemporaryDirectory() as folder:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tf.saved_model.save(made, folder)
        assert b"Horovod" not in (Path(folder) / "saved_model.pb").read_bytes()


@check(cases=["all", "first"])
def loading_while_training_leaves_compression_state(who: str) -> None:
    """Whether all ranks load the file of one, or one rank alone does: they stay at one step, and equal."""
    made = _trained(PowerSGD(rank=2))
    saved = weights(made)
    with tempfile.TemporaryDirectory() as folder:
        path = _shared(Path(folder))
        if stock.rank() == 0:
            _save(made, path)
        gathered("saved")
        fit(made, 2, first=3)
        exchange = made.optimizer.variable_exchange.exchange
        state = {name: dict(paths) for name, paths in exchange.state.variables_by_name.items()}
        kept = {f"{n}.{p}": tf.constant(v.numpy()) for n, paths in state.items() for p, v in paths.items()}
        if who == "all" or stock.rank() == 0:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                made.load_weights(path)
            told = [str(w.message) for w in caught if w.category is UserWarning]
            assert any("compression_state=False" in text and "training has begun" in text for text in told), told
            assert_same_bits(weights(made), saved)
        gathered("loaded")
    for variable in [*made.trainable_variables, *made.optimizer.variables]:
        variable.assign(stock.broadcast(tf.convert_to_tensor(variable), 0))
    assert_same_bits({f"{n}.{p}": tf.constant(v.numpy()) for n, paths in state.items() for p, v in paths.items()}, kept)
    assert exchange.step == 5
    fit(made, 2, first=5)
    assert exchange.step == 7
    assert_equal_on_ranks(weights(made))


@check()
def a_keras_that_saves_in_another_way_is_named() -> None:
    place = hvd_compress.keras.saving.__file__
    assert place is not None
    spec = importlib.util.spec_from_file_location("hvd_compress.keras._saving_elsewhere", place)
    assert spec is not None and spec.loader is not None
    missing, kept = "keras.src.saving.keras_saveable", sys.modules["keras.src.saving.keras_saveable"]
    sys.modules[missing] = None  # type: ignore[assignment]
    try:
        with raises(ImportError, keras.__version__, missing):
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
    finally:
        sys.modules[missing] = kept


def _shared(folder: Path) -> Path:
    """Return the same path on all ranks of this machine."""
    return Path(gathered(str(folder))[0]) / "model.keras"


@check()
def a_file_of_another_compressor_is_refused() -> None:
    made = _trained(PowerSGD(rank=2))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        _save(made, path)
        loaded = _loaded(path, PowerSGD(rank=3))
        with raises(ConfigurationError, "PowerSGD(rank=2)", "PowerSGD(rank=3)"):
            fit(loaded, 1)


@check()
def a_file_without_compression_state_says_so() -> None:
    plain = compiled(model(), _adam())
    fit(plain, 1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        _save(plain, path)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            _loaded(path, PowerSGD(rank=2))
        assert any("holds no compression state" in str(w.message) for w in caught)
        for quiet in (_loaded(path, None), _loaded(path, PowerSGD(rank=2), compression_state=False)):
            fit(quiet, 1, first=1)
        weightless = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
        _save(weightless, path)
        with raises(ConfigurationError, "without an optimizer"):
            _loaded(path, None)
        with raises(ConfigurationError, "legacy_opts"):
            hvd.load_model(path, legacy_opts=True)


@check(cases=["adam", "loss-scale"])
def a_checkpoint_goes_on_as_if_uninterrupted(plain: str) -> None:
    make = {"adam": _adam, "loss-scale": _scaled}[plain]
    made = _trained(PowerSGD(rank=2), make)
    with tempfile.TemporaryDirectory() as folder:
        path = tf.train.Checkpoint(model=made, optimizer=made.optimizer).save(f"{folder}/state")
        fit(made, 3, first=3)
        expected = _everything(made)
        other = compiled(model(seed=50 + stock.rank()), distributed(make(), PowerSGD(rank=2)))
        # Nothing of the optimizer or its compressor exists yet: it is restored when it is made.
        tf.train.Checkpoint(model=other, optimizer=other.optimizer).restore(path)
        fit(other, 3, first=3)
    assert_same_bits(_everything(other), expected)


@check(min_ranks=2)
def the_checkpoint_of_another_rank_is_refused_on_all_ranks() -> None:
    made = _trained(PowerSGD(rank=2))
    with tempfile.TemporaryDirectory() as folder:
        path = tf.train.Checkpoint(model=made, optimizer=made.optimizer).save(f"{folder}/state")
        other = compiled(model(), distributed(_adam(), PowerSGD(rank=2)))
        shared = gathered(path)[0]
        tf.train.Checkpoint(model=other, optimizer=other.optimizer).restore(shared)
        with raises(ConfigurationError, "Rank 1", "rank=0"):
            fit(other, 1)
        gathered("used")
