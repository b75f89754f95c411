"""hvd.DistributedOptimizer of hvd_compress.tensorflow: optimizers of tf_keras and of `tf.compat.v1.train`."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import horovod.tensorflow as stock
import numpy as np
import tensorflow as tf

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what tf_keras says of its own imports
    import tf_keras

import hvd_compress.tensorflow as hvd
from hvd_compress import (
    BlockSign,
    ConfigurationError,
    DistEFBlockSGDM,
    Identity,
    PowerSGD,
    RankDisagreementError,
    Simulator,
    UsageError,
)

from .harness import check
from .tensorflow_common import (
    as_float64,
    assert_close,
    assert_equal_on_ranks,
    assert_same_bits,
    gradients,
    mean_of,
    raises,
)
from .tensorflow_tape import ONE_BUCKET, own, variables

SHAPES: dict[str, tuple[int, ...]] = {"bias": (7,), "matrix": (24, 18), "conv": (3, 3, 4, 6)}
RATE = 0.125

KINDS: dict[str, Callable[..., Any]] = {
    "new": lambda **options: tf_keras.optimizers.SGD(RATE, **options),
    "legacy": lambda **options: tf_keras.optimizers.legacy.SGD(RATE, **options),
    "v1": lambda **options: tf.compat.v1.train.GradientDescentOptimizer(RATE, **options),
}
MODES = ("eager", "traced")
EVERY = [f"{kind}-{mode}" for kind in KINDS for mode in MODES]


def distributed(optimizer: Any, compression: Any = None, **options: Any) -> Any:
    """Return the optimizer, made distributed; tensors are small and compressed all the same."""
    options = {"allow_larger": True, "bucket_megabytes": ONE_BUCKET, **options}
    return hvd.DistributedOptimizer(optimizer, compression=compression, **options)


def applying(mode: str, optimizer: Any, sources: dict[str, tf.Variable]) -> Callable[[Any], None]:
    """Return a function that applies gradients by name."""

    def apply(given: Any) -> None:
        optimizer.apply_gradients([(given[name], v) for name, v in sources.items()])

    if mode == "traced":
        # Optimizers make their variables before they are traced, as Keras does.
        if hasattr(optimizer, "build"):
            optimizer.build(list(sources.values()))
        return tf.function(apply)
    return apply


@check(cases=EVERY)
def updates_equal_the_simulators(case: str) -> None:
    kind, mode = case.split("-")
    for compressor in (Identity(), PowerSGD(rank=2), DistEFBlockSGDM(BlockSign(block=256))):
        sources = variables(SHAPES)
        plain = KINDS[kind]()
        optimizer = distributed(plain, compressor)
        assert optimizer is plain
        apply = applying(mode, optimizer, sources)
        simulator = Simulator(compressor, stock.size(), allow_larger=True, learning_rate=RATE)
        expected = {name: np.zeros(shape) for name, shape in SHAPES.items()}
        for step in range(3):
            apply(own(step, SHAPES))
            everyone = [dict(reversed(g.items())) for g in gradients(step, SHAPES)]
            for name, mean in simulator.step(everyone)[stock.rank()].items():
                expected[name] -= RATE * as_float64(mean)
        assert_close(sources, expected, 1e-4)
        assert_equal_on_ranks(sources)
        assert optimizer.exchange.exchange is not None and optimizer.exchange.exchange.plan.compressor == compressor


@check(cases=["new", "legacy"])
def clipping_follows_the_exchange(kind: str) -> None:
    """The optimizer clips means: ranks would otherwise clip by different norms."""
    sources = variables(SHAPES)
    optimizer = distributed(KINDS[kind](global_clipnorm=0.5))
    applying("eager", optimizer, sources)(own(0, SHAPES))
    mean = mean_of(gradients(0, SHAPES))
    norm = np.sqrt(sum(np.square(g).sum() for g in mean.values()))
    assert_close(sources, {name: -RATE * 0.5 * g / norm for name, g in mean.items()})


@check(cases=["new", "legacy"])
def a_norm_that_differs_between_ranks_is_refused(kind: str) -> None:
    sources = variables(SHAPES)
    optimizer = distributed(KINDS[kind](global_clipnorm=0.5))
    optimizer.register_local_var(sources["bias"])
    with raises(ConfigurationError, "global_clipnorm=0.5", "clipvalue"):
        applying("eager", optimizer, sources)(own(0, SHAPES))


@check(min_ranks=2, cases=KINDS)
def backward_passes_that_differ_between_ranks_are_refused(kind: str) -> None:
    sources = variables(SHAPES)
    optimizer = distributed(KINDS[kind](), backward_passes_per_step=2 + (stock.rank() == 0))
    apply = applying("traced", optimizer, sources)
    with raises(RankDisagreementError, "backward_passes_per_step=3", "backward_passes_per_step=2"):
        for number in range(3):
            apply(own(number, SHAPES))


@check(cases=KINDS)
def minimize_exchanges_once(kind: str) -> None:
    sources = variables(SHAPES)
    optimizer = distributed(KINDS[kind](), PowerSGD(rank=2))
    for step in range(2):
        mine = own(step, SHAPES)
        optimizer.minimize(
            lambda mine=mine: tf.add_n([tf.reduce_sum(v * mine[n]) for n, v in sources.items()]),
            var_list=list(sources.values()),
        )
    assert int(optimizer.exchange.exchange.step) == 2
    assert_equal_on_ranks(sources)


@check()
def gradients_of_two_losses_are_exchanged_once_each() -> None:
    """Also where both are computed before the first is applied."""
    sources = variables(SHAPES)
    optimizer = distributed(KINDS["v1"]())
    computed = []
    for number in range(2):
        mine = own(number, SHAPES)
        computed.append(
            optimizer.compute_gradients(
                lambda mine=mine: tf.add_n([tf.reduce_sum(v * mine[n]) for n, v in sources.items()]),
                var_list=list(sources.values()),
            )
        )
    for pairs in computed:
        optimizer.apply_gradients(pairs)
    assert int(optimizer.exchange.exchange.step) == 2
    means = [mean_of(gradients(number, SHAPES)) for number in range(2)]
    assert_close(sources, {name: -RATE * (means[0][name] + means[1][name]) for name in SHAPES})


@check(cases=["new", "legacy"])
def class_name_and_configuration_stay(kind: str) -> None:
    plain = KINDS[kind](momentum=0.9)
    kept = type(plain), plain.get_config()
    optimizer = distributed(plain, PowerSGD(rank=2))
    assert (type(optimizer), optimizer.get_config()) == kept
    again = type(optimizer).from_config(optimizer.get_config())
    assert not hasattr(again, "register_local_var")


@check(cases=[f"{case}-{how}" for case in EVERY for how in ("sums", "averages")])
def backward_passes_add_up(case: str) -> None:
    kind, mode, how = case.split("-")
    sources = variables(SHAPES)
    optimizer = distributed(KINDS[kind](), backward_passes_per_step=3, average_aggregated_gradients=how == "averages")
    apply = applying(mode, optimizer, sources)
    expected = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    for number in range(7):
        apply(own(number, SHAPES))
        if number % 3 == 2:
            for earlier in range(number - 2, number + 1):
                for name, mean in mean_of(gradients(earlier, SHAPES)).items():
                    expected[name] -= RATE * mean / (3 if how == "averages" else 1)
        if number == 1:
            assert all(not v.numpy().any() for v in sources.values())
    assert_close(sources, expected, 1e-5)
    assert int(optimizer.exchange.exchange.step) == 2
    if kind != "v1":
        assert int(optimizer.iterations) == 7


@check(cases=EVERY)
def backward_passes_of_other_variables_are_refused(case: str) -> None:
    """Also where shapes are equal, so that no sum gets another variable's gradients."""
    kind, _ = case.split("-")
    shapes: dict[str, tuple[int, ...]] = {"matrix": (24, 18), "twin": (24, 18)}
    sources, given = variables(shapes), own(0, shapes)
    optimizer = distributed(KINDS[kind](), backward_passes_per_step=2)
    optimizer.apply_gradients([(given["matrix"], sources["matrix"]), (None, sources["twin"])])
    with raises(UsageError, "backward_passes_per_step"):
        optimizer.apply_gradients([(None, sources["matrix"]), (given["twin"], sources["twin"])])


@check()
def a_loss_scale_optimizer_sees_overflows_of_other_ranks() -> None:
    """One rank's overflow skips the step on all of them."""
    sources = variables(SHAPES)
    scaled = tf_keras.mixed_precision.LossScaleOptimizer(KINDS["new"](), initial_scale=4.0)
    optimizer = distributed(scaled, Identity())
    assert optimizer is scaled
    optimizer.build(list(sources.values()))
    for step in range(3):
        given = own(step, SHAPES)
        if step == 1 and stock.rank() == 0:
            given["bias"] = tf.fill((7,), np.inf)
        before = {name: as_float64(v) for name, v in sources.items()}
        optimizer.get_scaled_loss(tf.constant(1.0))
        unscaled = optimizer.get_unscaled_gradients([4.0 * given[name] for name in SHAPES])
        optimizer.apply_gradients(list(zip(unscaled, sources.values(), strict=True)))
        moved = {name: tf.constant(as_float64(v) - before[name], tf.float32) for name, v in sources.items()}
        if step == 1:
            assert all(not x.numpy().any() for x in moved.values())
        elif step == 0:
            assert_close(moved, {n: -RATE * g for n, g in mean_of(gradients(step, SHAPES)).items()})
    with raises(ConfigurationError, "backward_passes_per_step=2", "loss-scale"):
        distributed(tf_keras.mixed_precision.LossScaleOptimizer(KINDS["new"]()), backward_passes_per_step=2)


@check()
def fit_with_tf_keras() -> None:
    tf_keras.utils.set_random_seed(3)
    model = tf_keras.Sequential([tf_keras.layers.Dense(12, activation="tanh"), tf_keras.layers.Dense(1)])
    model.build((None, 6))
    optimizer = distributed(tf_keras.optimizers.Adam(0.05), PowerSGD(rank=2))
    model.compile(optimizer, "mse")
    draw = np.random.default_rng(stock.rank())
    x = draw.standard_normal((64, 6)).astype("float32")
    history = model.fit(x, x[:, :1], batch_size=16, epochs=4, verbose=0).history["loss"]
    assert history[-1] < history[0]
    assert int(optimizer.exchange.exchange.step) == 16
    assert_equal_on_ranks({str(i): v for i, v in enumerate(model.trainable_variables)})


@check(cases=KINDS)
def checkpoints_of_the_optimizer_hold_the_residuals(kind: str) -> None:
    compressor = PowerSGD(rank=2)
    with tempfile.TemporaryDirectory() as folder:
        sources = variables(SHAPES)
        optimizer = distributed(KINDS[kind](), compressor)
        for step in range(3):
            applying("eager", optimizer, sources)(own(step, SHAPES))
        saved = tf.train.Checkpoint(optimizer=optimizer, model=tf.train.Checkpoint(**sources))
        path = saved.save(str(Path(folder) / "state"))
        applying("eager", optimizer, sources)(own(3, SHAPES))

        fresh = variables(SHAPES)
        other = distributed(KINDS[kind](), compressor)
        tf.train.Checkpoint(optimizer=other, model=tf.train.Checkpoint(**fresh)).restore(path)
        applying("eager", other, fresh)(own(3, SHAPES))
    assert_same_bits(fresh, sources)
    assert int(other.exchange.exchange.step) == 4


@check(cases=KINDS)
def local_variables(kind: str) -> None:
    sources = variables(SHAPES)
    optimizer = distributed(KINDS[kind]())
    optimizer.register_local_var(sources["bias"])
    applying("eager", optimizer, sources)(own(0, SHAPES))
    expected = {name: -RATE * g for name, g in mean_of(gradients(0, SHAPES)).items()}
    expected["bias"] = -RATE * as_float64(own(0, SHAPES)["bias"]) / stock.size()
    assert_close(sources, expected)


@check(cases=KINDS)
def a_tape_and_an_optimizer_together_are_refused(kind: str) -> None:
    v = variables(SHAPES)["matrix"]
    optimizer = distributed(KINDS[kind]())
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(v)
    gradient = hvd.DistributedGradientTape(tape).gradient(loss, v)
    with raises(UsageError, "exchanged already", "not both"):
        optimizer.apply_gradients([(gradient, v)])


@check()
def what_cannot_be_honoured_is_refused() -> None:
    once = distributed(KINDS["new"]())
    for again in (hvd, stock):
        with raises(ConfigurationError, "distributed already"):
            distributed(once if again is hvd else again.DistributedOptimizer(KINDS["v1"]()))
    with raises(ConfigurationError, "Adasum", "DistributedGradientTape"):
        distributed(KINDS["v1"](), op=hvd.Adasum)
    with raises(ConfigurationError, "backward_passes_per_step=0"):
        distributed(KINDS["v1"](), backward_passes_per_step=0)
    with raises(ConfigurationError, "object is no optimizer"):
        distributed(object())
    for kind, name in (("new", "momentum=0.5"), ("legacy", "momentum=0.5")):
        with raises(ConfigurationError, "momentum of its own", name):
            distributed(KINDS[kind](momentum=0.5), DistEFBlockSGDM(BlockSign(block=256)))
    sparse = tf.IndexedSlices(tf.ones((1, 18)), tf.constant([2]), tf.constant([24, 18]))
    optimizer = distributed(KINDS["new"](), backward_passes_per_step=2)
    with raises(ConfigurationError, "sparse_as_dense=True"):
        optimizer.apply_gradients([(sparse, variables(SHAPES)["matrix"])])


@check(cases=["new", "legacy", "v1"])
def sparse_gradients(kind: str) -> None:
    for dense in (False, True):
        table = variables(SHAPES)["matrix"]
        optimizer = distributed(KINDS[kind](), sparse_as_dense=dense)
        rows = tf.constant([stock.rank(), 3, 3])
        optimizer.apply_gradients([(tf.IndexedSlices(tf.ones((3, 18)), rows, tf.constant([24, 18])), table)])
        expected = np.zeros((24, 18))
        for rank in range(stock.size()):
            np.add.at(expected, [rank, 3, 3], -RATE / stock.size())
        assert_close({"table": table}, {"table": expected})
