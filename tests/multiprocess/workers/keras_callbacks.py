"""hvd_compress.keras.callbacks in real calls of `fit`: what ranks must share is shared, in logs, rates and files."""

from __future__ import annotations

import math
import operator
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import horovod.keras as stock_keras
import horovod.tensorflow as stock
import keras
import numpy as np
import tensorflow as tf

import hvd_compress.keras as hvd
import hvd_compress.tensorflow as hvd_tensorflow
from hvd_compress import ConfigurationError, PowerSGD, RankDisagreementError, TopK
from hvd_compress.feedback import ErrorFeedback
from hvd_compress.tensorflow.replicas import CURE

from .harness import check
from .process_sets import SETS
from .tensorflow_common import assert_equal_on_ranks, bits, gathered, raises

callbacks = hvd.callbacks
# What Keras itself meets when it saves variables of TensorFlow under NumPy 2.
warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy keyword", DeprecationWarning)


class Seen(keras.callbacks.Callback):
    """Keeps what callbacks before it have left at every batch and epoch."""

    def __init__(self, batch: Callable[[Any], Any] | None = None) -> None:
        super().__init__()
        self._batch = batch
        self.batches: list[Any] = []
        self.ends: list[Any] = []
        self.epochs: list[dict[str, Any]] = []

    def on_train_batch_begin(self, batch, logs=None):
        if self._batch is not None:
            self.batches.append(self._batch(self.model))

    def on_train_batch_end(self, batch, logs=None):
        if self._batch is not None:
            self.ends.append(self._batch(self.model))

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(dict(logs or {}))


class Logs(keras.callbacks.Callback):
    """Puts values into the logs of an epoch, as a user's own metrics would."""

    def __init__(self, values: Callable[[int], dict[str, Any]]) -> None:
        super().__init__()
        self._values = values

    def on_epoch_end(self, epoch, logs=None):
        logs.update(self._values(epoch))


class Lazy(keras.Model):
    """Has no variables before it has seen data."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = [keras.layers.Dense(5), keras.layers.BatchNormalization(), keras.layers.Dense(2)]

    def call(self, x):
        for layer in self._stack:
            x = layer(x)
        return x


class OwnStep(keras.Sequential):
    """Trains by a step of its own, where a tape could exchange gradients."""

    def train_step(self, data):
        return super().train_step(data)


def _model(seed: int, dropout: bool = False, own_step: bool = False) -> keras.Model:
    """Return a model of random weights that is built, with every kind of variable."""
    start = keras.initializers.RandomNormal(seed=seed)
    layers: list[Any] = [
        keras.layers.Input((6,)),
        keras.layers.Dense(5, kernel_initializer=start, dtype="bfloat16" if dropout else None),
        keras.layers.BatchNormalization(dtype="float32"),
        keras.layers.Dense(2, kernel_initializer=start, dtype="float64" if dropout else None),
    ]
    if dropout:
        layers.insert(2, keras.layers.Dropout(0.5, seed=seed))
    return OwnStep(layers) if own_step else keras.Sequential(layers)


def _data(rank: int | None = None, batches: int = 3) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng([5, stock.rank() if rank is None else rank])
    x = draw.standard_normal((4 * batches, 6)).astype("float32")
    return x, x[:, :2] * 2.0 + 1.0


def _fit(model: keras.Model, used: Sequence[Any], epochs: int = 1, batches: int = 3, **options: Any) -> Any:
    x, y = _data(batches=batches)
    return model.fit(x, y, batch_size=4, epochs=epochs, verbose=0, shuffle=False, callbacks=list(used), **options)


def _distributed(optimizer: Any, compression: Any = None, **options: Any) -> Any:
    options.setdefault("allow_larger", True)
    return hvd.DistributedOptimizer(optimizer, compression=compression, **options)


def _variables(model: keras.Model) -> list[Any]:
    """Return what is broadcast."""
    return [*model.weights, *model.optimizer.variables]


def _values(model: keras.Model) -> dict[str, Any]:
    """Return what is broadcast, by position, since Keras numbers models as it pleases."""
    return {f"{i}": tf.convert_to_tensor(v) for i, v in enumerate(_variables(model))}


@contextmanager
def _shared_folder(name: str) -> Iterator[Path]:
    """Give all ranks, on one machine, the same empty folder."""
    folder = Path(gathered(tempfile.mkdtemp(prefix=name))[0])
    yield folder
    gathered(None)  # nobody reads any more


@contextmanager
def _warned(*fragments: str) -> Iterator[None]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield
    told = [str(w.message) for w in found if w.category is UserWarning]
    assert any(all(f in text for f in fragments) for text in told), f"{fragments} is not in {told}"


# --- broadcast ---


@check(cases=["built", "dropout", "lazy", "adam", "accumulating"])
def broadcast_makes_ranks_equal(case: str) -> None:
    rank, root = stock.rank(), stock.size() - 1
    model = Lazy() if case == "lazy" else _model(seed=rank, dropout=case == "dropout", own_step=case == "dropout")
    if case == "lazy":
        keras.utils.set_random_seed(100 + rank)
    rate = 0.01 * (rank + 1)
    plain = {
        "adam": keras.optimizers.Adam(rate),
        "accumulating": keras.optimizers.SGD(rate, momentum=0.5, gradient_accumulation_steps=2),
    }.get(case, keras.optimizers.SGD(rate, momentum=0.5))
    distributed = case != "dropout"  # also where the optimizer is not
    model.compile(_distributed(plain, PowerSGD(rank=1)) if distributed else plain, "mse")
    if case in ("built", "adam"):
        plain.build(model.trainable_variables)
        plain.iterations.assign(5 + rank)
        for variable in plain.variables[2:]:
            variable.assign(np.full(variable.shape, 0.25 + rank, "float32"))
    own = {key: bits(value) for key, value in _values(model).items()}
    seeds = [bits(v.value) for v in model.variables if v.path.endswith("seed_generator_state")]
    expected = gathered(own)[root]

    at_begin: dict[str, Any] = {}
    after = []

    def begin() -> None:
        at_begin.update({key: bits(value) for key, value in _values(model).items()})

    spy = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: begin(),
        on_train_batch_end=lambda batch, logs: after.append({k: bits(v) for k, v in _values(model).items()}),
    )
    _fit(model, [callbacks.BroadcastGlobalVariablesCallback(root), spy])
    # Before the first step: all that was there, bit by bit as on the root.
    if case != "lazy":
        assert at_begin == expected
    everyone = gathered(after)
    assert len(after) == 3
    if case == "lazy":
        assert len(after[0]) > len(own)
    steps = range(3) if distributed else range(0)
    for step in steps:
        differ = [key for key in everyone[0][step] if everyone[rank][step][key] != everyone[0][step][key]]
        # Statistics of a layer that normalises batches, and gradients that wait for the exchange, are each rank's own.
        own_names = ("moving_mean", "moving_variance", "accumulator")
        allowed = {str(i) for i, v in enumerate(_variables(model)) if v.path.endswith(own_names)}
        assert not set(differ) - allowed, f"step {step}: {differ}"
    if case == "lazy":
        assert everyone[rank][0] == everyone[0][0]
    if case == "dropout":
        assert seeds and len(set(gathered(seeds[0]))) == stock.size()


@check(min_ranks=2)
def broadcast_to_ranks_without_optimizer_variables() -> None:
    """A run is resumed on the first rank only: momenta and step count are its own, and reach the others."""
    model = _model(seed=stock.rank())
    plain = keras.optimizers.SGD(0.1, momentum=0.5, gradient_accumulation_steps=2)
    model.compile(_distributed(plain, PowerSGD(rank=1)), "mse")
    if stock.rank() == 0:
        plain.build(model.trainable_variables)
        plain.variables[0].assign(7)  # counts batches
        for momentum in plain.momentums:
            momentum.assign(tf.ones(momentum.shape))
    counts = Seen(lambda model: int(model.optimizer.variables[0].numpy()))
    _fit(model, [callbacks.BroadcastGlobalVariablesCallback(0), counts], batches=5)
    assert counts.batches == [7, 8, 9, 10, 11]
    assert_equal_on_ranks({str(i): m.value for i, m in enumerate(plain.momentums)})
    # Ones, less each step's update: they cannot have started from zeros on both ranks.
    assert any(np.abs(m.numpy()).max() > 0.01 for m in plain.momentums)


@check(min_ranks=2)
def broadcast_leaves_local_variables() -> None:
    model = _model(seed=stock.rank(), own_step=True)
    own, other = model.trainable_variables[0], model.trainable_variables[-2]
    model.compile(keras.optimizers.SGD(0.0), "mse")
    before = bits(own.value)
    callback = callbacks.BroadcastGlobalVariablesCallback(0, local_variables=own)
    callback.register_local_var(own.value)
    _fit(model, [callback])
    assert bits(own.value) == before and len(set(gathered(before))) == stock.size()
    assert_equal_on_ranks({"other": other.value})
    with raises(ConfigurationError, "not a variable"):
        callback.register_local_var("kernel")


@check(min_ranks=2)
def broadcast_of_different_models_is_refused() -> None:
    width = 2 + (stock.rank() == stock.size() - 1)
    model = OwnStep([keras.layers.Input((6,)), keras.layers.Dense(2), keras.layers.Dense(width)])
    model.compile(keras.optimizers.SGD(0.1), lambda y, p: tf.reduce_mean(p))
    with raises(RankDisagreementError, "differ in their weights", "[2, 2]", "[2, 3]"):
        _fit(model, [callbacks.BroadcastGlobalVariablesCallback(0)])


@check(min_ranks=2)
def broadcast_within_a_process_set() -> None:
    last = stock.size() - 1
    model = _model(seed=stock.rank())
    before = bits(model.trainable_variables[0].value)
    model.compile(_distributed(keras.optimizers.SGD(0.0), process_set=SETS["last"]), "mse")
    used = [callbacks.BroadcastGlobalVariablesCallback(last), callbacks.MetricAverageCallback()]
    if stock.rank() == last:
        _fit(model, used)  # the other ranks take no part, and nobody waits for them
    assert bits(model.trainable_variables[0].value) == before
    if stock.rank() == last:
        with raises(ConfigurationError, "root_rank=0", "not among the ranks"):
            _fit(model, [callbacks.BroadcastGlobalVariablesCallback(0)])


@check(min_ranks=2, cases=["all", "one"])
def broadcast_of_a_model_without_weights_needs_single_steps(case: str) -> None:
    model = Lazy()
    model.compile(_distributed(keras.optimizers.SGD(0.1), PowerSGD(rank=1)), "mse", steps_per_execution=2)
    if case == "one" and stock.rank() > 0:
        model(_data()[0])
    used = [callbacks.BroadcastGlobalVariablesCallback(0)]
    with raises(ConfigurationError, "Rank 0", "steps_per_execution=2", "build the model first"):
        _fit(model, used, batches=4)
    model(_data()[0])
    _fit(model, used, batches=4)
    assert_equal_on_ranks({str(i): v.value for i, v in enumerate(model.trainable_variables)})


@check()
def broadcast_variables_leaves_seeds() -> None:
    model = _model(seed=stock.rank(), dropout=True)
    seeds = [v for v in model.variables if v.path.endswith("seed_generator_state")]
    before = [bits(v.value) for v in seeds]
    assert seeds and len(set(gathered(before[0]))) == stock.size()
    hvd_tensorflow.broadcast_variables(model.variables, root_rank=0)
    assert [bits(v.value) for v in seeds] == before
    assert_equal_on_ranks({v.path: v.value for v in model.weights})
    hvd_tensorflow.broadcast_variables(seeds, root_rank=0)
    assert [bits(v.value) for v in seeds] == before


@check()
def what_messages_name_is_there() -> None:
    """The names that the cure for unequal ranks gives are names of this module; global variables are refused."""
    model = _model(seed=stock.rank())
    for name in re.findall(r"hvd\.([\w.]+)\(", CURE):
        assert callable(operator.attrgetter(name)(hvd)), name
    hvd.broadcast_variables(model.variables, root_rank=0)
    assert_equal_on_ranks({v.path: v.value for v in model.weights})
    for room in (hvd, hvd_tensorflow):
        with raises(ConfigurationError, "TensorFlow 1", "broadcast_variables", "BroadcastGlobalVariablesCallback(0)"):
            room.broadcast_global_variables(0)
    with raises(ConfigurationError, "TensorFlow 1"):  # where Horovod's own broadcasts nothing and says nothing
        tf.function(lambda: hvd_tensorflow.broadcast_global_variables(0), autograph=False)()


@check()
def global_variables_of_a_graph_are_broadcast() -> None:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variable = tf.compat.v1.get_variable("v", initializer=tf.constant([1.0, 2.0]) + stock.rank())
        session.run(tf.compat.v1.global_variables_initializer())
        session.run(hvd_tensorflow.broadcast_global_variables(stock.size() - 1))
        found = session.run(variable)
    assert found.tolist() == [float(stock.size()), stock.size() + 1.0]


@check(min_ranks=2, cases=["one", "list"])
def local_layers_stay_each_ranks_own(case: str) -> None:
    model = _model(seed=0)
    own = model.layers[0]
    local = own if case == "one" else [own]
    model.compile(hvd.PartialDistributedOptimizer(keras.optimizers.SGD(0.1), local_layers=local), "mse")
    _fit(model, [])
    assert len(set(gathered(bits(own.kernel.value)))) == stock.size()
    assert_equal_on_ranks({"last": model.layers[-1].kernel.value})
    for wrong in (3, [own, "kernel"], keras.layers.Dense(2)):
        with raises(ConfigurationError, "no layer of Keras 3 that is built"):
            hvd.PartialDistributedOptimizer(keras.optimizers.SGD(0.1), local_layers=wrong)


@check()
def compression_state_is_broadcast() -> None:
    """What all ranks share of the compression state is the root's; residuals stay."""
    model = _model(seed=0)
    model.compile(_distributed(keras.optimizers.SGD(0.1), PowerSGD(rank=1)), "mse")
    _fit(model, [callbacks.BroadcastGlobalVariablesCallback(0)])
    exchange = model.optimizer.variable_exchange.exchange
    names = {name: leaves for name, leaves in exchange.state.variables_by_name.items() if "q" in _last(leaves)}
    assert names
    errors = {name: bits(_of(leaves, "error")) for name, leaves in names.items()}
    for leaves in names.values():
        _of(leaves, "q").assign(tf.fill(_of(leaves, "q").shape, 1.0 + stock.rank()))
    callback = callbacks.BroadcastGlobalVariablesCallback(0)
    callback.set_model(model)
    callback.on_train_begin()
    for name, leaves in names.items():
        assert (_of(leaves, "q").numpy() == 1.0).all()
        assert bits(_of(leaves, "error")) == errors[name]


def _last(leaves: dict[str, Any]) -> set[str]:
    return {path.split(".")[-1] for path in leaves}


def _of(leaves: dict[str, Any], last: str) -> Any:
    return next(variable for path, variable in leaves.items() if path.split(".")[-1] == last)


# --- metrics ---


@check()
def metrics_are_means() -> None:
    rank, size = stock.rank(), stock.size()
    values = {
        "number": 1.0 + rank,
        "whole": np.int64(rank),
        "array": np.arange(3) + rank,
        "text": f"rank {rank}",
        "tensor": tf.constant(2.0 * rank),
        "nothing": None,
    }
    model = _model(seed=rank, own_step=True)
    model.compile(keras.optimizers.SGD(0.01), "mse", metrics=["mae"])
    before, after = Seen(), Seen()
    used = [Logs(lambda epoch: values), before, callbacks.MetricAverageCallback(), after]
    history = _fit(model, used, epochs=2, validation_data=_data(rank + 10)).history
    everyone = gathered([{k: v for k, v in logs.items() if isinstance(v, float)} for logs in before.epochs])
    assert {"loss", "mae", "val_loss", "val_mae"} <= everyone[0][0].keys()
    for epoch, logs in enumerate(after.epochs):
        for name in ("loss", "mae", "val_loss", "val_mae", "number"):
            mean = np.mean([other[epoch][name] for other in everyone])
            assert math.isclose(logs[name], mean, rel_tol=1e-12), name
            assert history[name][epoch] == logs[name]
        assert logs["whole"] == (size - 1) / 2 and logs["tensor"] == size - 1
        assert logs["text"] == f"rank {rank}" and logs["nothing"] is None
        assert (logs["array"] == np.arange(3) + rank).all()
    if size > 1:
        assert everyone[0][0]["loss"] != everyone[1][0]["loss"]


@check(min_ranks=2)
def metrics_that_some_ranks_lack_are_told() -> None:
    rank = stock.rank()
    model = _model(seed=0, own_step=True)
    model.compile(keras.optimizers.SGD(0.01), "mse")
    after = Seen()
    only = {"here": 5.0, "both": 1.0 + rank} if rank == 0 else {"both": 1.0 + rank, "there": np.zeros(2)}
    used = [Logs(lambda epoch: only), callbacks.MetricAverageCallback(), after]
    with _warned("'here': [1", "not averaged"):
        _fit(model, used, epochs=2)
    assert after.epochs[1]["both"] == (stock.size() + 1) / 2
    assert after.epochs[1].get("here") == (5.0 if rank == 0 else None)


# --- learning rates ---


def _rate(model: keras.Model) -> float:
    return float(model.optimizer.learning_rate.numpy())


@check(cases=["distributed", "plain", "scaled-loss"])
def warmup_follows_the_formula(case: str) -> None:
    size, steps, warmup, rate = stock.size(), 4, 2, 0.4
    model = _model(seed=0, own_step=case != "distributed")
    optimizer: Any = keras.optimizers.Adam(9.0)
    if case == "distributed":
        optimizer = _distributed(optimizer)
    if case == "scaled-loss":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer, "mse")
    seen = Seen(_rate)
    logs = Seen()
    warm = callbacks.LearningRateWarmupCallback(rate, warmup_epochs=warmup)
    _fit(model, [warm, seen, logs], epochs=3, batches=steps)
    found = np.array(seen.batches).reshape(3, steps)
    for epoch in range(3):
        for batch in range(steps):
            over = min(epoch + (batch + 1) / steps, warmup)
            expected = rate / size * ((size - 1) / warmup * over + 1)
            assert math.isclose(found[epoch, batch], expected, rel_tol=1e-6), (epoch, batch)
        assert math.isclose(logs.epochs[epoch]["lr"], found[epoch, -1], rel_tol=1e-7)
    assert math.isclose(found[-1, -1], rate, rel_tol=1e-6)


SCHEDULES: dict[str, tuple[dict[str, Any], Callable[[int, int], float]]] = {
    "power": ({"multiplier": 0.5}, lambda epoch, batch: 0.5**epoch),
    "staircase": ({"multiplier": lambda epoch: 1.0 / (1 + epoch)}, lambda epoch, batch: 1.0 / (1 + epoch)),
    "smooth": (
        {"multiplier": lambda epoch: 1.0 / (1 + epoch), "staircase": False},
        lambda epoch, batch: 1.0 / (1 + epoch + batch / 4),
    ),
    "from-to": (
        {"multiplier": lambda epoch: 0.1, "start_epoch": 1, "end_epoch": 2},
        lambda epoch, batch: 1.0 if epoch == 0 else 0.1,  # what was set stays
    ),
    "unknown-length": (
        {"multiplier": lambda epoch: 1.0 + epoch, "staircase": False, "steps_per_epoch": 8},
        lambda epoch, batch: 1.0 + epoch + batch / 8,
    ),
}


@check(cases=SCHEDULES)
def schedules_follow_their_function(case: str) -> None:
    options, expected = SCHEDULES[case]
    model = _model(seed=0)
    model.compile(_distributed(keras.optimizers.SGD(0.25)), "mse")
    seen = Seen(_rate)
    _fit(model, [callbacks.LearningRateScheduleCallback(0.25, **options), seen], epochs=3, batches=4)
    for i, rate in enumerate(seen.batches):
        assert math.isclose(rate, 0.25 * expected(i // 4, i % 4), rel_tol=1e-6), i


MOMENTA: dict[str, Callable[[], Any]] = {
    "sgd": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "nesterov": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.1, momentum=0.9),
    "accumulating": lambda: keras.optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=2),
}


@check(cases=MOMENTA)
def momentum_correction_follows_the_rate(case: str) -> None:
    """The steps taken are rate x u, with u <- m u + (what the optimizer makes of g), whatever the rates were before."""
    rates = [0.1, 0.05, 0.2, 0.2, 0.01, 0.4]
    weight = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    weight.set_weights([np.array([[0.5]])])
    optimizer = _distributed(MOMENTA[case]())
    # The gradient is the mean of x over the batch, whatever the weight: 1, 2, 3, ...
    weight.compile(optimizer, lambda y, prediction: keras.ops.mean(prediction))
    x = np.arange(1.0, 7.0).reshape(6, 1)
    seen = Seen(lambda model: float(model.get_weights()[0][0, 0]))
    schedule = callbacks.LearningRateScheduleCallback(1.0, lambda epoch: rates[round(epoch * 6)], staircase=False)
    weight.fit(x, x, batch_size=1, shuffle=False, verbose=0, callbacks=[schedule, seen])
    velocity, mean_square, value, held = 0.0, 0.0, 0.5, 0.0
    for step, rate in enumerate(rates):
        gradient = step + 1.0
        if case == "accumulating":
            held += gradient / 2
            if step % 2 == 0:
                assert math.isclose(seen.ends[step], value, rel_tol=1e-5)
                continue
            gradient, held = held, 0.0
        if case == "rmsprop":
            mean_square = 0.9 * mean_square + 0.1 * gradient**2
            gradient /= math.sqrt(mean_square + 1e-7)
        velocity = 0.9 * velocity + gradient
        value -= rate * (0.9 * velocity + gradient if case == "nesterov" else velocity)
        assert math.isclose(seen.ends[step], value, rel_tol=1e-5), (step, seen.ends, value)


@check()
def rates_that_cannot_be_set_are_refused() -> None:
    model = _model(seed=0, own_step=True)
    decay = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    for rate in (decay, lambda: 0.1):
        model.compile(keras.optimizers.SGD(rate), "mse")
        with raises(ConfigurationError, "SGD", "schedule or a function", "a number"):
            _fit(model, [callbacks.LearningRateWarmupCallback(0.1)])
    model.compile(keras.optimizers.Muon(0.1), "mse")
    with raises(ConfigurationError, "Muon", "momentum_correction=False"):
        _fit(model, [callbacks.LearningRateScheduleCallback(0.1, 0.5)])
    _fit(model, [callbacks.LearningRateScheduleCallback(0.1, 0.5, momentum_correction=False)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    endless = tf.data.Dataset.from_generator(
        lambda: iter([_data()]), output_signature=tuple(tf.TensorSpec(a.shape, a.dtype) for a in _data())
    )
    with raises(ConfigurationError, "LearningRateWarmupCallback", "steps_per_epoch"):
        model.fit(endless, verbose=0, shuffle=False, callbacks=[callbacks.LearningRateWarmupCallback(0.1)])


# --- files ---


@check()
def best_model_is_saved_once() -> None:
    """The file holds the weights of the epoch whose mean over ranks was the best, though no rank's own was."""
    means, rank, size = [3.0, 1.0, 2.0], stock.rank(), stock.size()

    def scores(epoch: int) -> dict[str, Any]:
        # The first rank's own score gets better at every epoch, the others' get worse by as much in all.
        away = 0.0 if size == 1 else (-10.0 if rank == 0 else 10.0 / (size - 1)) * epoch
        return {"score": means[epoch] + away}

    with _shared_folder("best") as folder:
        model = _model(seed=0)
        model.compile(_distributed(keras.optimizers.SGD(0.05, momentum=0.5), PowerSGD(rank=1)), "mse")
        path = folder / "best.keras"
        best = callbacks.BestModelCheckpoint(path, monitor="score", mode="min")
        weights = []
        keep = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: weights.append(model.get_weights()))
        _fit(model, [Logs(scores), callbacks.MetricAverageCallback(), best, keep], epochs=3)
        gathered(None)  # the first rank has written
        assert [p.name for p in folder.iterdir()] == ["best.keras"]
        loaded = keras.models.load_model(path, compile=False).get_weights()
        for found, right in zip(loaded, weights[1], strict=True):
            if stock.rank() == 0:
                assert (found == right).all()
        assert best.best == (1.0 if stock.rank() == 0 else None)
    with raises(ValueError, "must end in `.keras`"):
        callbacks.BestModelCheckpoint("best.txt")


@check()
def best_model_may_be_given_to_one_rank_alone() -> None:
    with _shared_folder("alone") as folder:
        model = _model(seed=0)
        model.compile(_distributed(keras.optimizers.SGD(0.05)), "mse")
        path = str(folder / "{epoch}.weights.h5")
        mine = [callbacks.BestModelCheckpoint(path, "loss", save_weights_only=True)] if stock.rank() == 0 else []
        _fit(model, mine)
        gathered(None)
        assert os.listdir(folder) == ["1.weights.h5"]


@check()
def best_model_is_for_all_ranks() -> None:
    with _shared_folder("for-all") as folder:
        model = _model(seed=0)
        model.compile(_distributed(keras.optimizers.SGD(0.05, momentum=0.5), PowerSGD(rank=1)), "mse")
        path = folder / "best.keras"
        _fit(model, [callbacks.MetricAverageCallback(), callbacks.BestModelCheckpoint(path, "loss")])
        gathered(None)  # the first rank has written
        exchange = model.optimizer.variable_exchange.exchange
        right = [v.numpy() for v in model.trainable_variables]
        _fit(model, [])
        state = {n: {p: bits(v) for p, v in paths.items()} for n, paths in exchange.state.variables_by_name.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # there is no state in the file that would be left out
            model.load_weights(path)
        for variable, value in zip(model.trainable_variables, right, strict=True):
            assert (variable.numpy() == value).all()
        for name, paths in exchange.state.variables_by_name.items():
            assert {p: bits(v) for p, v in paths.items()} == state[name]
        with _warned("holds no compression state", "compression_state=False"):
            loaded = hvd.load_model(path, compression=PowerSGD(rank=1), allow_larger=True)
        for trained in (model, loaded):
            _fit(trained, [callbacks.BroadcastGlobalVariablesCallback(0)])
            assert_equal_on_ranks({str(i): v.value for i, v in enumerate(trained.trainable_variables)})
        own = folder / f"own-{stock.rank()}.keras"
        model.save(own)  # what is saved otherwise has the state as before
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            hvd.load_model(own, compression=PowerSGD(rank=1), allow_larger=True)


def _events(folder: Path) -> dict[str, dict[int, float]]:
    """Return the scalars of TensorBoard files by tag and step."""
    found: dict[str, dict[int, float]] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                assert value.metadata.plugin_data.plugin_name == "scalars" or value.tag in found
                found.setdefault(value.tag, {})[event.step] = float(tf.make_ndarray(value.tensor))
    return found


@check(cases=["powersgd", "later", "top-k", "none"])
def compression_metrics_are_those_of_the_exchange(case: str) -> None:
    compressor = {
        "powersgd": PowerSGD(rank=1),
        "later": PowerSGD(rank=1, start_after=3),
        "top-k": ErrorFeedback(TopK(ratio=0.25, min_size=0)),
        "none": None,
    }[case]
    with _shared_folder("events") as folder:
        model = _model(seed=0)
        model.compile(_distributed(keras.optimizers.SGD(0.05), compressor), "mse")
        seen = Seen()
        _fit(model, [callbacks.CompressionMetricsCallback(folder), seen], epochs=3, batches=2)
        exchange = model.optimizer.variable_exchange.exchange
        dense = sum(math.prod(v.shape) for v in model.trainable_variables) * 4 * 2 * (stock.size() - 1) / stock.size()
        for epoch, logs in enumerate(seen.epochs):
            sent = [exchange.plan.wire_bytes(stock.size(), step) for step in (2 * epoch, 2 * epoch + 1)]
            assert logs["compression_sent_bytes"] == sum(sent) / 2
            assert logs["compression_steps"] == 2 * (epoch + 1)
            if stock.size() == 1:
                assert logs["compression_ratio"] == math.inf
            elif case == "none":
                assert logs["compression_ratio"] == 1.0
            else:
                # Every payload is rounded up to a whole byte.
                assert math.isclose(logs["compression_ratio"], dense / (sum(sent) / 2), rel_tol=0.02)
        norms = [logs["compression_residual_norm"] for logs in seen.epochs]
        errors = [
            variable.numpy().astype("float64")
            for leaves in exchange.state.variables_by_name.values()
            for path, variable in leaves.items()
            if path.split(".")[-1] == "error"
        ]
        assert bool(errors) == (case != "none")
        assert math.isclose(norms[-1], math.sqrt(sum((e**2).sum() for e in errors)), rel_tol=1e-6)
        assert (norms[-1] > 0) == (case != "none")
        if case == "later" and stock.size() > 1:
            assert seen.epochs[0]["compression_sent_bytes"] > seen.epochs[2]["compression_sent_bytes"]
        events = _events(folder / f"rank{stock.rank()}")
        assert events.keys() == {name for name in seen.epochs[0] if name.startswith("compression_")}
        for name, by_step in events.items():
            assert by_step == {epoch: float(np.float32(logs[name])) for epoch, logs in enumerate(seen.epochs)}


@check()
def compression_metrics_need_an_exchange() -> None:
    model = _model(seed=0)
    model.compile(keras.optimizers.SGD(0.05), "mse")
    with raises(ConfigurationError, "CompressionMetricsCallback", "hvd.DistributedOptimizer"):
        _fit(model, [callbacks.CompressionMetricsCallback()])


# --- what all check ---

EVERY: dict[str, Callable[[], Any]] = {
    "broadcast": lambda: callbacks.BroadcastGlobalVariablesCallback(0),
    "average": lambda: callbacks.MetricAverageCallback(),
    "warmup": lambda: callbacks.LearningRateWarmupCallback(0.1),
    "schedule": lambda: callbacks.LearningRateScheduleCallback(0.1, 0.5),
    "best": lambda: callbacks.BestModelCheckpoint("best.keras", "loss"),
    "compression": lambda: callbacks.CompressionMetricsCallback(),
}


@check(cases=EVERY)
def stock_distributed_optimizer_is_refused(case: str) -> None:
    for scaled in (False, True):
        wrapped = stock_keras.DistributedOptimizer(keras.optimizers.SGD(0.1))
        if scaled:
            wrapped = keras.optimizers.LossScaleOptimizer(wrapped)
        model = _model(seed=0)
        model.compile(wrapped, "mse")
        with raises(ConfigurationError, "SGD", "reduces no gradient under Keras 3", "import hvd_compress.keras as hvd"):
            _fit(model, [EVERY[case]()])


@check(cases=["first-fit", "second-fit"])
def xla_is_switched_off(case: str) -> None:
    model = _model(seed=0)
    model.compile(_distributed(keras.optimizers.SGD(0.1), PowerSGD(rank=1)), "mse", jit_compile=case == "first-fit")
    if case == "second-fit":
        model.jit_compile = True
        model.make_train_function()  # as a call of fit() leaves it
    with _warned("jit_compile is switched off", "jit_compile=False"):
        _fit(model, [callbacks.BroadcastGlobalVariablesCallback(0), callbacks.MetricAverageCallback()])
    assert model.jit_compile is False
    _fit(model, [callbacks.MetricAverageCallback()])
    assert_equal_on_ranks({str(i): v.value for i, v in enumerate(model.trainable_variables)})


@check(cases=EVERY)
def training_that_nobody_exchanges_is_refused(case: str) -> None:
    """The optimizer of a file that Keras itself has loaded is a plain one."""
    model = _model(seed=0)
    model.compile(_distributed(keras.optimizers.SGD(0.1)), "mse")
    with _shared_folder("plain") as folder:
        path = folder / f"{stock.rank()}.keras"
        model.save(path)
        loaded = keras.models.load_model(path)
    x, y = _data()
    before = loaded.get_weights()
    loaded.evaluate(x, y, verbose=0, callbacks=[EVERY[case]()])
    told = ("hvd.load_model", "hvd.DistributedOptimizer")
    if stock.size() > 1 and case != "compression":
        with raises(ConfigurationError, "SGD", *told):
            _fit(loaded, [EVERY[case]()])
        assert all((a == b).all() for a, b in zip(loaded.get_weights(), before, strict=True))
    several = _model(seed=0)
    chosen = _distributed(keras.optimizers.SGD(0.1))
    several.compile(keras.optimizers.MultiOptimizer(lambda variable: chosen), "mse", jit_compile=False)
    _fit(several, [callbacks.MetricAverageCallback()])


@check()
def xla_stays_on_without_distributed_optimizer() -> None:
    model = _model(seed=0, own_step=True)
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=True)
    _fit(model, [callbacks.MetricAverageCallback()])
    assert model.jit_compile is True


@check()
def all_callbacks_together_keep_ranks_equal() -> None:
    with _shared_folder("all") as folder:
        model = _model(seed=stock.rank())
        model.compile(
            _distributed(keras.optimizers.SGD(0.02, momentum=0.5), PowerSGD(rank=1)), "mse", steps_per_execution=2
        )
        used = [
            callbacks.BroadcastGlobalVariablesCallback(0),
            callbacks.MetricAverageCallback(),
            callbacks.LearningRateWarmupCallback(0.04, warmup_epochs=1),
            callbacks.LearningRateScheduleCallback(0.04, 0.5, start_epoch=1),
            callbacks.BestModelCheckpoint(folder / "best.keras", "loss"),
            callbacks.CompressionMetricsCallback(folder),
        ]
        history = _fit(model, used, epochs=3, batches=4).history
        assert_equal_on_ranks({str(i): v.value for i, v in enumerate(model.trainable_variables)})
        assert len({tuple(losses) for losses in gathered(history["loss"])}) == 1
        assert math.isclose(history["lr"][2], 0.02, rel_tol=1e-6)
        gathered(None)
        assert (folder / "best.keras").exists()
