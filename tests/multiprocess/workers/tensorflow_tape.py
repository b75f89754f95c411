"""DistributedGradientTape over Horovod, made anew at every step as Horovod's users do."""

from __future__ import annotations

import gc
import inspect
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import horovod.tensorflow as stock
import numpy as np
import tensorflow as tf

import hvd_compress.tensorflow as hvd
from hvd_compress import (
    QSGD,
    AllGather,
    AllReduce,
    BlockSign,
    Cast,
    ConfigurationError,
    DistEFBlockSGD,
    DistEFBlockSGDM,
    ErrorFeedback,
    GTopK,
    Identity,
    PowerSGD,
    RankDisagreementError,
    ReplicaDivergenceError,
    ScaleCom,
    Simulator,
    UsageError,
)
from hvd_compress.ops import in_numpy
from hvd_compress.tensorflow import compression_state, variable_exchange

from . import process_sets
from .harness import check
from .tensorflow_common import (
    as_float64,
    assert_close,
    assert_equal_on_ranks,
    assert_same_bits,
    gathered,
    gradients,
    mean_of,
    raises,
)

SHAPES: dict[str, tuple[int, ...]] = {
    "scalar": (),
    "bias": (7,),
    "matrix": (24, 18),
    "twin": (24, 18),
    "conv": (3, 3, 4, 6),
}
MODES = ("eager", "traced")
# All gradients in one collective a round: sums do not depend on timing.
ONE_BUCKET = 1e6


def variables(shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> dict[str, tf.Variable]:
    """Return variables of zeros, equal on all ranks."""
    return {name: tf.Variable(tf.zeros(shape), name=name) for name, shape in shapes.items()}


def own(step: int, shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> dict[str, tf.Tensor]:
    """Return this rank's gradients of a step."""
    return gradients(step, shapes)[stock.rank()]


def taped(sources: Mapping[str, tf.Variable], wanted: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """Return what a new distributed tape gives, of a loss whose gradients are `wanted`."""
    options = {"allow_larger": True, "bucket_megabytes": ONE_BUCKET, **options}
    with tf.GradientTape() as tape:
        loss = tf.add_n([tf.reduce_sum(v * wanted[name]) for name, v in sources.items()])
    tape = hvd.DistributedGradientTape(tape, **options)
    return tape.gradient(loss, dict(sources))


def stepper(mode: str, sources: Mapping[str, tf.Variable], **options: Any) -> Callable[[Any], dict[str, Any]]:
    """Return a function from wanted gradients to means, eager or traced."""

    def step(wanted: Any) -> dict[str, Any]:
        return taped(sources, wanted, **options)

    return tf.function(step) if mode == "traced" else step


def simulated(simulator: Simulator, step: int, shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> dict[str, Any]:
    """Return this rank's means by the simulator, which is given the last variable first, as drivers plan."""
    # A nested structure is flattened in the order of its keys.
    ordered = sorted(shapes, reverse=True)
    return simulator.step([{name: g[name] for name in ordered} for g in gradients(step, shapes)])[stock.rank()]


# --- means ---

CASES: dict[str, Any] = {
    "identity": Identity(),
    "powersgd": PowerSGD(rank=2),
    "powersgd-later": PowerSGD(rank=2, start_after=2),
    "scalecom": ScaleCom(5, min_size=8),
    "gtopk": GTopK(0.05, min_size=8),
    "dist-ef": DistEFBlockSGDM(BlockSign(block=256)),
    "qsgd": AllGather(QSGD(levels=2, norm="max")),
}


@check(cases=[f"{name}-{mode}" for name in CASES for mode in MODES])
def equals_the_simulator(case: str) -> None:
    name, _, mode = case.rpartition("-")
    sources = variables()
    step: Any = stepper(mode, sources, compression=CASES[name], learning_rate=0.1)
    simulator = Simulator(CASES[name], stock.size(), allow_larger=True, learning_rate=0.1)
    for number in range(4):
        found = step(own(number))
        assert_close(found, simulated(simulator, number), 3e-5)
        # TensorFlow traces a function twice in the call that makes variables, and no call after that does.
        traces = 0 if mode == "eager" else step.experimental_get_tracing_count()
        assert traces <= 2, traces
    assert_equal_on_ranks(found)


@check()
def eager_equals_traced() -> None:
    results = []
    for mode in MODES:
        step = stepper(mode, variables(), compression=PowerSGD(rank=2))
        for number in range(3):
            found = step(own(number))
        results.append(found)
    assert_same_bits(results[1], results[0])


@check(cases=["sum", "predivide", "groups-2", "groups-lists", "num-groups", "devices"])
def options_keep_the_mean(case: str) -> None:
    sources = variables()
    options: dict[str, Any] = {
        "sum": {"op": hvd.Sum},
        "predivide": {"gradient_predivide_factor": 4.0},
        "groups-2": {"groups": 2},
        "groups-lists": {"groups": [[sources["bias"], sources["conv"]], [sources["matrix"]]]},
        "num-groups": {"num_groups": 2},
        "devices": {"device_dense": "/cpu:0", "device_sparse": "/cpu:0"},
    }[case]
    factor = stock.size() if case == "sum" else 1
    for compression in (Identity(), ErrorFeedback(AllReduce(Identity()))):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for number in range(2):
                found = taped(
                    variables() if "lists" not in case else sources, own(number), compression=compression, **options
                )
        assert {w.category for w in caught} <= ({DeprecationWarning} if case == "num-groups" else {UserWarning})
        expected = {name: factor * mean for name, mean in mean_of(gradients(1, SHAPES)).items()}
        assert_close(found, expected)


class Words(tf.Module):
    """An embedding, whose gradients are `tf.IndexedSlices`, and a dense layer."""

    def __init__(self, dtype: str = "float32") -> None:
        super().__init__()
        draw = np.random.default_rng(5)
        self.table = tf.Variable(tf.cast(draw.standard_normal((9, 4)), dtype), name="table")
        self.head = tf.Variable(tf.cast(draw.standard_normal((4, 3)), dtype), name="head")

    @property
    def sources(self) -> list[tf.Variable]:
        return [self.table, self.head]

    def loss(self, words: tf.Tensor) -> tf.Tensor:
        """Return a sum over words, so that no words are no loss."""
        return tf.reduce_sum(tf.square(tf.matmul(tf.gather(self.table, words), self.head)))


def words_of(step: int, rank: int, dtype: str = "int64") -> tf.Tensor:
    """Return words, some twice; none for rank 0 at step 1, and for no rank at step 2."""
    if step == 2 or (step == 1 and rank == 0):
        return tf.zeros((0,), dtype)
    return tf.constant([(3 * step + rank) % 9, (step + 2) % 9, (step + 2) % 9, rank][: 3 + rank], dtype)


@check(cases=[f"{how}-{kind}-{mode}" for how in ("gathered", "dense") for kind in ("int32", "int64") for mode in MODES])
def embeddings(case: str) -> None:
    """Passed through or densified: the dense mean of the dense gradients, whatever rows a rank has."""
    how, kind, mode = case.split("-")
    model = Words()

    def step(words: tf.Tensor) -> list[Any]:
        with tf.GradientTape() as tape:
            loss = model.loss(words)
        tape = hvd.DistributedGradientTape(tape, sparse_as_dense=how == "dense", allow_larger=True)
        return tape.gradient(loss, model.sources)

    function = tf.function(step, reduce_retracing=True) if mode == "traced" else step
    for number in range(4):
        found = function(words_of(number, stock.rank(), kind))
        assert isinstance(found[0], tf.IndexedSlices) == (how == "gathered")
        if how == "gathered":
            assert found[0].indices.dtype == tf.as_dtype(kind)
            assert int(tf.reduce_sum(tf.cast(found[0].indices < 0, tf.int32))) == 0
        assert_close(dense_of(found, model), mean_over_ranks(model, number))


def dense_of(found: Sequence[Any], model: Words) -> dict[str, np.ndarray]:
    """Return gradients by name, as float64, repeated rows added up."""
    result = {}
    for name, gradient, v in zip(("table", "head"), found, model.sources, strict=True):
        result[name] = np.zeros(v.shape)
        if isinstance(gradient, tf.IndexedSlices):
            np.add.at(result[name], gradient.indices.numpy(), as_float64(gradient.values))
        else:
            result[name] = as_float64(gradient)
    return {name: tf.constant(x, tf.float32) for name, x in result.items()}


def mean_over_ranks(model: Words, step: int) -> dict[str, np.ndarray]:
    """Return the mean of all ranks' dense gradients, computed in this process alone."""
    total = {name: np.zeros(v.shape) for name, v in zip(("table", "head"), model.sources, strict=True)}
    for rank in range(stock.size()):
        with tf.GradientTape() as tape:
            loss = model.loss(words_of(step, rank))
        for name, x in dense_of(tape.gradient(loss, model.sources), model).items():
            total[name] += as_float64(x) / stock.size()
    return total


@check(cases=["float16", "bfloat16"])
def embeddings_of_narrow_numbers(dtype: str) -> None:
    model = Words(dtype)
    with tf.GradientTape() as tape:
        loss = model.loss(words_of(0, stock.rank()))
    found = hvd.DistributedGradientTape(tape, allow_larger=True).gradient(loss, model.sources)
    assert found[0].values.dtype == tf.as_dtype(dtype)
    assert_close(dense_of(found, model), mean_over_ranks(model, 0), 2e-2)


@check(min_ranks=2)
def stock_gives_the_same_without_compression() -> None:
    results = []
    for framework in (stock, hvd):
        model = Words()
        for step in (0, 3):
            with tf.GradientTape() as tape:
                loss = model.loss(words_of(step, stock.rank()))
            tape = framework.DistributedGradientTape(tape)
            for v, gradient in zip(model.sources, tape.gradient(loss, model.sources), strict=True):
                v.assign_sub(0.01 * tf.convert_to_tensor(gradient))
        results.append({"table": model.table, "head": model.head})
    assert_close(results[1], results[0])


# --- what the tape itself can do ---


@check()
def structures_and_arguments_of_gradient() -> None:
    sources, mean = variables(), mean_of(gradients(0, SHAPES))
    a, b = sources["matrix"], sources["bias"]
    unused = tf.Variable(1.0, name="unused")
    mine = own(0)
    with tf.GradientTape(persistent=True) as plain:
        loss = tf.reduce_sum(a * mine["matrix"]) + tf.reduce_sum(b * mine["bias"])
    tape = hvd.DistributedGradientTape(plain, allow_larger=True)
    assert isinstance(tape, tf.GradientTape)
    assert {id(v) for v in tape.watched_variables()} == {id(a), id(b)}
    assert_close({"matrix": tape.gradient(loss, a)}, {"matrix": mean["matrix"]})
    nested = tape.gradient(loss, {"x": [a, (b, a)], "y": unused})
    assert nested["y"] is None and isinstance(nested["x"][1], tuple)
    assert_close({"a": nested["x"][0], "b": nested["x"][1][0]}, {"a": mean["matrix"], "b": mean["bias"]})
    assert nested["x"][1][1] is nested["x"][0]
    zero = tape.gradient(loss, [a, unused], unconnected_gradients=tf.UnconnectedGradients.ZERO)
    assert float(zero[1]) == 0.0
    doubled = tape.gradient(loss, [b], output_gradients=tf.constant(2.0))
    assert_close({"b": doubled[0]}, {"b": 2 * mean["bias"]})
    # Jacobians are the tape's own, of this rank.
    assert_close({"j": tape.jacobian(loss, b)}, {"j": mine["bias"]})


@check()
def a_wrapper_made_before_the_forward_pass() -> None:
    a = variables()["matrix"]
    with hvd.DistributedGradientTape(tf.GradientTape(), allow_larger=True) as tape:
        loss = tf.reduce_sum(a * own(0)["matrix"])
    assert_close({"a": tape.gradient(loss, a)}, {"a": mean_of(gradients(0, SHAPES))["matrix"]})


@check()
def tensors_are_refused_as_sources() -> None:
    x = tf.ones((3,))
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(x * x)
    tape = hvd.DistributedGradientTape(tape)
    with raises(UsageError, "Source 0", "plain tape"):
        tape.gradient(loss, x)


@check()
def wrapping_or_exchanging_twice_is_refused() -> None:
    for framework in (stock, hvd):
        once = framework.DistributedGradientTape(tf.GradientTape())
        with raises(ConfigurationError, "distributed already"):
            hvd.DistributedGradientTape(once)


@check(cases=["scaled", "unscaled", "partial"])
def local_sources(case: str) -> None:
    sources = variables()
    mine, mean = own(0), mean_of(gradients(0, SHAPES))
    divisor = 1 if case == "unscaled" else stock.size()

    class Layer:
        """All that a layer is here."""

        trainable_weights = (sources["bias"],)

    with tf.GradientTape() as tape:
        loss = tf.add_n([tf.reduce_sum(v * mine[name]) for name, v in sources.items()])
    if case == "partial":
        tape = hvd.PartialDistributedGradientTape(tape, local_layers=Layer(), allow_larger=True)
    else:
        tape = hvd.DistributedGradientTape(tape, scale_local_gradients=case == "scaled", allow_larger=True)
        tape.register_local_source(sources["bias"])
    local, shared = tape.get_local_and_global_gradients(loss, list(sources.values()))
    assert [v is sources["bias"] for v, _ in local] == [True] and len(shared) == len(sources) - 1
    assert_close({"bias": local[0][1]}, {"bias": as_float64(mine["bias"]) / divisor})
    names = [name for name in SHAPES if name != "bias"]
    assert_close(dict(zip(names, [g for _, g in shared], strict=True)), {name: mean[name] for name in names})


class KerasVariable:
    """What a Keras variable is to us: it holds one of TensorFlow's."""

    def __init__(self, held: tf.Variable) -> None:
        self._value = self.value = held
        self.assign = held.assign


@check(min_ranks=2)
def a_variable_is_the_same_in_either_spelling() -> None:
    """A layer names the Keras variable, the loop takes gradients of the one of TensorFlow inside."""
    sources, mine = variables(), own(0)
    with tf.GradientTape() as tape:
        loss = tf.add_n([tf.reduce_sum(v * mine[name]) for name, v in sources.items()])
    tape = hvd.DistributedGradientTape(tape, allow_larger=True, scale_local_gradients=False)
    tape.register_local_source(KerasVariable(sources["bias"]))
    found = tape.gradient(loss, dict(sources))
    assert_same_bits({"bias": found["bias"]}, {"bias": mine["bias"]})
    assert_close({"matrix": found["matrix"]}, {"matrix": mean_of(gradients(0, SHAPES))["matrix"]})
    pair = [KerasVariable(sources["matrix"]), sources["twin"]]
    grouped = variable_exchange.VariableExchange(Identity(), groups=[pair], bucket_megabytes=1e-6)
    grouped(list(mine.values()), list(sources.values()))
    plan = grouped.exchange.plan
    names = [{plan.units[i].name for i in bucket} for bucket in plan.buckets]
    assert {"matrix", "twin"} in names


@check(cases=["2.5", "True", "-1", "[1]"])
def groups_that_are_none_are_refused(text: str) -> None:
    with raises(ConfigurationError, f"groups={text}"):
        variable_exchange.VariableExchange(Identity(), groups=json.loads(text.lower()))


# --- state ---


@check()
def two_models_never_share() -> None:
    """Equal names and shapes: each model's state is what it is without the other."""
    alone, expected = variables(), []
    for number in range(4):
        expected.append(taped(alone, own(number), compression=PowerSGD(rank=2)))
    first, second = variables(), variables()
    for number in range(4):
        assert_same_bits(taped(first, own(number), compression=PowerSGD(rank=2)), expected[number])
        if number < 3:
            taped(second, own(number + 50), compression=PowerSGD(rank=2))


@check()
def state_goes_with_its_variables() -> None:
    gc.collect()
    before = len(compression_state._found)
    sources = variables()
    stepper("eager", sources, compression=PowerSGD(rank=2))(own(0))
    assert len(compression_state._found) == before + 1
    del sources
    gc.collect()
    assert len(compression_state._found) == before


@check()
def another_compressor_for_the_same_variables() -> None:
    """It starts anew and says so; states of one's own are meant; plain averages have nothing to lose."""
    sources = variables()
    taped(sources, own(0), compression=PowerSGD(rank=2))
    taped(sources, own(0))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        taped(sources, own(0), compression=PowerSGD(rank=1))
    assert [w.category for w in caught] == [UserWarning]
    assert "PowerSGD(rank=2" in str(caught[0].message) and "hvd.CompressionState()" in str(caught[0].message)
    assert caught[0].filename == __file__, caught[0].filename
    state = hvd.CompressionState()
    taped(sources, own(0), compression=PowerSGD(rank=3), state=state)
    with raises(UsageError, "PowerSGD(rank=3", "PowerSGD(rank=1"):
        taped(sources, own(0), compression=PowerSGD(rank=1), state=state)
    with raises(UsageError, "['new'] are new"):
        more = {**sources, "other": tf.Variable(tf.zeros((3,)), name="new")}
        taped(more, {**own(0), "other": tf.ones((3,))}, compression=PowerSGD(rank=3), state=state)


@check()
def variables_in_another_order_are_the_same() -> None:
    sources = variables()
    orders = [list(SHAPES), list(reversed(SHAPES))]
    results = []
    for swap in (False, True):
        sources = variables()
        for number in range(3):
            with tf.GradientTape() as tape:
                mine = own(number)
                loss = tf.add_n([tf.reduce_sum(v * mine[name]) for name, v in sources.items()])
            tape = hvd.DistributedGradientTape(tape, compression=PowerSGD(rank=2), allow_larger=True)
            order = orders[number % 2 if swap else 0]
            found = dict(zip(order, tape.gradient(loss, [sources[name] for name in order]), strict=True))
        results.append(found)
    assert_close(results[1], {name: results[0][name] for name in results[1]})


@check()
def gradients_that_vanish_are_refused() -> None:
    sources = variables()
    taped(sources, own(0))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(sources["matrix"])
    with raises(UsageError, "bias", "new or missing"):
        hvd.DistributedGradientTape(tape, allow_larger=True, bucket_megabytes=ONE_BUCKET).gradient(loss, dict(sources))


@check(min_ranks=2, cases=["dense", "powersgd", "scalecom", "signs"])
def sums_of_means_are_equal_on_ranks(case: str) -> None:
    """What users compute from means in the same graph is not rearranged by the optimiser of each process."""
    compression = {
        "dense": None,
        "powersgd": PowerSGD(rank=2),
        "scalecom": ScaleCom(),
        "signs": DistEFBlockSGD(BlockSign(block=256)),
    }[case]
    sources = variables({f"v{i}": (9 + i, 7) for i in range(20)})
    wanted = {
        name: tf.random.stateless_normal(v.shape, [stock.rank(), i]) for i, (name, v) in enumerate(sources.items())
    }

    @tf.function
    def step() -> dict[str, Any]:
        means = taped(sources, wanted, compression=compression, learning_rate=0.1)
        norm = sum(tf.reduce_sum(mean * mean) for mean in means.values())  # as clipping does
        summed = sum(mean[:7] for mean in means.values())
        steps = {name: means[name] * 0.1 + v + means[name] ** 2 + v * 0.3 for name, v in sources.items()}
        for name, variable in sources.items():
            variable.assign(steps[name])
        return {"norm": norm, "summed": summed, **steps}

    for _ in range(3):
        assert_equal_on_ranks(step())


@check(cases=["number", "variable", "function", "optimizer"])
def the_learning_rate(case: str) -> None:
    """Whatever it is given as, it is read at every step."""
    rates = [0.5, 0.25, 0.0, 0.125]
    rate = tf.Variable(0.0)

    class Optimizer:
        """All that an optimizer is here."""

        learning_rate = rate

        def apply_gradients(self) -> None: ...

    given = {"number": None, "variable": rate, "function": lambda: rate, "optimizer": Optimizer()}[case]
    sources = variables()
    simulator = Simulator(DistEFBlockSGDM(BlockSign(block=256)), stock.size(), allow_larger=True)
    for number, value in enumerate(rates):
        rate.assign(value)
        options = {
            "learning_rate": value if given is None else given,
            "compression": DistEFBlockSGDM(BlockSign(block=256)),
        }
        found = taped(sources, own(number), **options)
        simulator.learning_rate = value
        assert_close(found, simulated(simulator, number), 3e-5)


@check()
def a_missing_learning_rate_is_refused() -> None:
    with raises(ConfigurationError, "learning_rate=..."):
        taped(variables(), own(0), compression=DistEFBlockSGDM(BlockSign(block=256)))


# --- checkpoints ---


@contextmanager
def _folder() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        yield str(Path(folder) / f"rank{stock.rank()}")


@check(cases=[f"{how}-{mode}" for how in ("deferred", "live") for mode in MODES])
def continuing_equals_uninterrupted(case: str) -> None:
    """A state restored before its first step, or over other steps, goes on bit for bit."""
    how, mode = case.split("-")
    compressor = PowerSGD(rank=2, start_after=1)
    with _folder() as folder:
        state = hvd.CompressionState()
        step = stepper(mode, variables(), compression=compressor, state=state)
        for number in range(3):
            step(own(number))
        path = tf.train.Checkpoint(compression=state).save(folder)
        expected = [step(own(number)) for number in range(3, 6)]

        fresh = hvd.CompressionState()
        step = stepper(mode, variables(), compression=compressor, state=fresh)
        if how == "live":
            step(own(77))
        status = tf.train.Checkpoint(compression=fresh).restore(path)
        found = [step(own(number)) for number in range(3, 6)]
        status.assert_consumed()
    for left, right in zip(found, expected, strict=True):
        assert_same_bits(left, right)
    assert fresh.remembers
    assert int(fresh.exchange.exchange.step) == 6


REFUSED: dict[str, tuple[Any, tuple[str, ...]]] = {
    "rank": (PowerSGD(rank=2), ("rank=", "checkpoint that it saved itself")),
    "compressor": (PowerSGD(rank=3), ("compressor=", "PowerSGD(rank=2", "PowerSGD(rank=3")),
    "model": (PowerSGD(rank=2), ("another model",)),
}


@check(min_ranks=2, cases=[f"{what}-{how}" for what in REFUSED for how in ("deferred", "live")])
def checkpoints_of_others_are_refused(case: str) -> None:
    """On every rank where the state is just made; where it is in use, nothing of it is changed."""
    what, how = case.split("-")
    compressor, fragments = REFUSED[what]
    shapes = {**SHAPES, "bias": (8,)} if what == "model" else SHAPES
    with _folder() as folder:
        state = hvd.CompressionState()
        taped(variables(), own(0), compression=PowerSGD(rank=2), state=state)
        path = tf.train.Checkpoint(compression=state).save(folder)
        paths = gathered(path)
        fresh, sources = hvd.CompressionState(), variables(shapes=shapes)
        # As with one folder for all ranks: only the last one's state is of another rank.
        path = paths[0] if what == "rank" else path
        wrong = what != "rank" or stock.rank() != 0
        options = {"compression": compressor, "state": fresh}
        if how == "deferred":
            tf.train.Checkpoint(compression=fresh).restore(path)
            for _ in range(2):
                with raises(ConfigurationError, "Rank ", *fragments):
                    taped(sources, own(0, shapes), **options)
        else:
            taped(sources, own(0, shapes), **options)
            before = {v.name: v.numpy() for v in fresh.exchange.variables}
            if wrong:
                with raises(ConfigurationError, *fragments):
                    tf.train.Checkpoint(compression=fresh).restore(path)
            assert_same_bits({v.name: v for v in fresh.exchange.variables}, before)
        gathered("the folder is in use until here")


@check(min_ranks=2)
def a_checkpoint_without_state_is_any_ranks() -> None:
    """As without compression: rank 0 saves, all restore."""
    with _folder() as folder:
        state = hvd.CompressionState()
        taped(variables(), own(0), compression=Identity(), state=state)
        path = gathered(tf.train.Checkpoint(compression=state).save(folder))[0]
        fresh = hvd.CompressionState()
        tf.train.Checkpoint(compression=fresh).restore(path)
        found = taped(variables(), own(1), compression=Identity(), state=fresh)
        assert_close(found, mean_of(gradients(1, SHAPES)))
        gathered("the folder is in use until here")


@check()
def gradients_of_another_variable_are_refused() -> None:
    """Also where there are as many as before, of the same shape."""
    sources = {name: tf.Variable(tf.zeros((9, 7)), name=name) for name in "abc"}

    def of(used: str) -> None:
        with tf.GradientTape() as tape:
            loss = tf.add_n([tf.reduce_sum(sources[name]) for name in used])
        hvd.DistributedGradientTape(tape, compression=PowerSGD(rank=2)).gradient(loss, sources)

    of("ab")
    with raises(UsageError, "'b'", "'c'", "new or missing"):
        of("ac")


def _numbered(first: int, swapped: bool = False) -> dict[str, tf.Variable]:
    """Return two variables of one shape, with names as Keras numbers layers."""
    names = [f"dense_{number}" if number else "dense" for number in (first, first + 1)]
    return {
        key: tf.Variable(tf.zeros((9, 7)), name=f"{name}/kernel")
        for key, name in zip("ba" if swapped else "ab", names, strict=True)
    }


def _of_numbered(step: int) -> dict[str, Any]:
    return own(step, {"a": (9, 7), "b": (9, 7)})


@check()
def a_checkpoint_is_for_the_same_layers_numbered_otherwise() -> None:
    options = {"compression": ErrorFeedback(AllReduce(Cast("float16")))}
    with _folder() as folder:
        state, sources = hvd.CompressionState(), _numbered(0)
        for number in range(3):
            taped(sources, _of_numbered(number), state=state, **options)
        path = tf.train.Checkpoint(compression=state).save(folder)
        expected = taped(sources, _of_numbered(3), state=state, **options)
        for first in (2, 9):
            fresh = hvd.CompressionState()
            status = tf.train.Checkpoint(compression=fresh).restore(path)
            assert_same_bits(taped(_numbered(first), _of_numbered(3), state=fresh, **options), expected)
            status.assert_consumed()
        gathered("the folder is in use until here")


@check(min_ranks=2)
def ranks_that_number_layers_otherwise_train_alike() -> None:
    shapes = {"a": (9, 7), "b": (9, 7)}
    found = taped(_numbered(3 * stock.rank()), _of_numbered(0), compression=Identity())
    assert_close(found, mean_of(gradients(0, shapes)))
    with raises(RankDisagreementError, "set up differently"):
        taped(_numbered(3, swapped=stock.rank() == 1), _of_numbered(0), compression=Identity())


@check(min_ranks=2)
def checkpoints_of_different_steps_are_refused() -> None:
    with _folder() as folder:
        state, sources = hvd.CompressionState(), variables()
        checkpoint = tf.train.Checkpoint(compression=state)
        paths = []
        for number in range(2):
            taped(sources, own(number), compression=PowerSGD(rank=2), state=state)
            paths.append(checkpoint.save(folder))
        fresh = hvd.CompressionState()
        tf.train.Checkpoint(compression=fresh).restore(paths[min(stock.rank(), 1)])
        with raises(ConfigurationError, "step 1", "step 2", "rank 0"):
            taped(variables(), own(2), compression=PowerSGD(rank=2), state=fresh)


# --- ranks that differ ---


def _one_of_two(without: bool) -> None:
    sources = variables(shapes={"a": (3,), "b": (3,)})
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(sources["a"]) + (0.0 if without else tf.reduce_sum(sources["b"]))
    hvd.DistributedGradientTape(tape).gradient(loss, dict(sources))


def _any_of_one(without: bool) -> None:
    v = tf.Variable(tf.zeros((3,)), name="b")
    with tf.GradientTape() as tape:
        loss = tf.constant(0.0) if without else tf.reduce_sum(v)
    hvd.DistributedGradientTape(tape).gradient(loss, v)


def _with_numpy(without: bool) -> None:
    with mock.patch.dict(os.environ, {in_numpy.SWITCH: str(int(not without))}):
        taped(variables(), own(0))


DIFFERENT: dict[str, tuple[Callable[[int], None], str]] = {
    "compressor": (lambda last: taped(variables(), own(0), compression=PowerSGD(rank=2 + last)), "PowerSGD(rank=3"),
    "shape": (
        lambda last: taped(variables(shapes={"a": (3, 2 + last)}), {"a": tf.ones((3, 2 + last))}),
        "[3, 3]",
    ),
    "factor": (lambda last: taped(variables(), own(0), gradient_predivide_factor=1.0 + last), "factor=2.0"),
    "no-gradient": (
        lambda last: _one_of_two(bool(last)),
        "b: [3] float32",
    ),
    "work-in-numpy": (lambda last: _with_numpy(bool(last)), "work in NumPy=False"),
    "no-gradient-at-all": (lambda last: _any_of_one(bool(last)), "nothing"),
}


@check(min_ranks=2, cases=DIFFERENT)
def ranks_that_differ_are_told_on_every_rank(case: str) -> None:
    run, fragment = DIFFERENT[case]
    with raises(RankDisagreementError, fragment):
        run(int(stock.rank() == stock.size() - 1))


@check(min_ranks=2, cases=MODES)
def replicas_that_differ_are_told_on_every_rank(mode: str) -> None:
    """Before the second step, so that a broadcast after the first batch is in time, and then only when asked."""
    words = ("'bias'", "between rank 0 and rank 1", "after step", "broadcast_variables")
    for every, bad in ((0, 1), (2, 4)):
        sources = variables()
        step = stepper(mode, sources, check_replicas_every=every)
        for number in range(bad):
            step(own(number))
        sources["bias"].assign_add(tf.ones((7,)) * stock.rank())
        try:
            step(own(bad))
        except (ReplicaDivergenceError, tf.errors.OpError) as error:
            assert mode == "traced" or type(error) is ReplicaDivergenceError
            missing = [word for word in (*words, "ReplicaDivergenceError") if word not in f"{type(error)} {error}"]
            assert not missing, (missing, str(error))
        else:
            raise AssertionError("nothing was said")
    sources = variables()
    sources["bias"].assign_add(tf.ones((7,)) * stock.rank())
    step = stepper(mode, sources)
    step(own(0))
    hvd.broadcast_variables(list(sources.values()), root_rank=0)
    assert float(sources["bias"][0]) == 0.0
    step(own(1))


@check(min_ranks=2)
def ranks_outside_the_process_set_keep_their_own() -> None:
    members = process_sets.SETS["last"]
    mine = own(0)
    for compression in (Identity(), PowerSGD(rank=2)):
        sources = variables()
        for _ in range(2):
            found = taped(sources, mine, compression=compression, process_set=members)
        if not members.included() or isinstance(compression, Identity):
            assert_close(found, mine)


# --- graphs ---


@check()
def functions_that_xla_compiles_are_refused() -> None:
    sources = variables()

    @tf.function(jit_compile=True)
    def step(wanted: Any) -> Any:
        return taped(sources, wanted)

    with raises(ConfigurationError, "jit_compile=False"):
        step(own(0))


@check()
def steps_in_a_loop_of_one_graph() -> None:
    """Several exchanges of one trace, in a `tf.while_loop`: the simulator's steps, one after the other."""
    sources = variables()
    steps = 6
    all_own = {name: tf.stack([own(number)[name] for number in range(steps)]) for name in SHAPES}

    @tf.function
    def train(given: Any) -> None:
        for number in tf.range(steps):
            means = taped(sources, {name: g[number] for name, g in given.items()}, compression=PowerSGD(rank=2))
            for name, v in sources.items():
                v.assign_sub(means[name])

    train(all_own)
    simulator = Simulator(PowerSGD(rank=2), stock.size(), allow_larger=True)
    expected = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    for number in range(steps):
        for name, mean in simulated(simulator, number).items():
            expected[name] -= as_float64(mean)
    assert_close(sources, expected, 1e-4)
    assert_equal_on_ranks(sources)


@check()
def two_tapes_in_one_graph_in_any_order() -> None:
    """As in a GAN: two exchanges of one step on different variables; ranks may run them in different orders."""
    first, second = variables(), variables()
    options = {"compression": PowerSGD(rank=2)}
    for sources in (first, second):
        taped(sources, own(90), **options)

    @tf.function
    def step(a: Any, b: Any) -> Any:
        given = [(first, a), (second, b)]
        if stock.rank() % 2:
            given.reverse()
        found = [taped(sources, wanted, **options) for sources, wanted in given]
        return list(reversed(found)) if stock.rank() % 2 else found

    simulators = [Simulator(PowerSGD(rank=2), stock.size(), allow_larger=True) for _ in range(2)]
    for simulator in simulators:
        simulated(simulator, 90)
    for number in range(5):
        found = step(own(number), own(number + 20))
        for place, simulator in enumerate(simulators):
            assert_close(found[place], simulated(simulator, number + 20 * place), 3e-5)


# --- Adasum, join ---


@check(min_ranks=2, cases=["none", "fp16", "Identity", "Cast"], launchers=["mpi"])
def adasum_goes_through_stock(name: str) -> None:
    theirs = {"none": "none", "fp16": "fp16", "Identity": "none", "Cast": "fp16"}[name]
    ours = {"Identity": Identity(), "Cast": Cast()}.get(name) or getattr(hvd.Compression, name)
    results = []
    for framework, compression in ((stock, getattr(stock.Compression, theirs)), (hvd, ours)):
        sources = variables()
        with tf.GradientTape() as tape:
            loss = tf.add_n([tf.reduce_sum(v * own(0)[name]) for name, v in sources.items()])
        tape = framework.DistributedGradientTape(tape, compression=compression, op=stock.Adasum)
        results.append(dict(zip(SHAPES, tape.gradient(loss, list(sources.values())), strict=True)))
    assert_close(results[1], results[0])


@check()
def adasum_with_several_rounds_is_refused() -> None:
    for compressor in (PowerSGD(rank=2), ErrorFeedback(Cast())):
        with raises(ConfigurationError, "Adasum", "hvd.Average"):
            taped(variables(), own(0), compression=compressor, op=hvd.Adasum)
    with raises(ConfigurationError, "groups=2"):
        taped(variables(), own(0), groups=2, op=hvd.Adasum)


@check(min_ranks=2)
def join_with_a_compressor_that_gathers_is_refused() -> None:
    sources = variables()
    step = stepper("eager", sources, compression=GTopK(0.05, min_size=8))
    step(own(0))
    with raises(ConfigurationError, "hvd.join()", "GTopK"):
        hvd.join()


@check(min_ranks=2)
def join_before_replicas_are_compared_is_refused() -> None:
    step = stepper("eager", variables(), compression=Identity())
    step(own(0))
    with raises(ConfigurationError, "hvd.join()", "after 1 step"):
        hvd.join()


@check(min_ranks=2)
def join_gives_the_others_zeros_once() -> None:
    """A second join of Horovod's does not wait: gradients of different steps would be paired, and nothing said."""
    gc.collect()
    step = stepper("traced", variables(), compression=PowerSGD(rank=2))
    for number in range(3 if stock.rank() == 0 else 2):
        found = step(own(number))
    assert int(hvd.join()) == 0
    if stock.rank() == 0:
        dense = ("bias", "scalar")
        expected = {name: as_float64(own(2)[name]) / stock.size() for name in dense}
        assert_close({name: found[name] for name in dense}, expected)
    # All ranks go on from the same step and factors.
    assert_equal_on_ranks(step(own(5)))
    with raises(UsageError, "hvd.join()", "first call only"):
        hvd.join()


# --- the namespace ---


@check()
def the_namespace_is_horovods() -> None:
    assert hvd.allreduce is stock.allreduce and hvd.broadcast_object is stock.broadcast_object
    assert {name for name in dir(stock) if not name.startswith("_")} - {"keras"} <= set(dir(hvd))
    with raises(AttributeError, "horovod.tensorflow", "'nothing'"):
        hvd.nothing  # noqa: B018
    for name in ("DistributedGradientTape", "PartialDistributedGradientTape", "DistributedOptimizer"):
        theirs = inspect.signature(getattr(stock, name)).parameters
        ours = inspect.signature(getattr(hvd, name)).parameters
        assert list(ours)[: len(theirs)] == list(theirs), name
