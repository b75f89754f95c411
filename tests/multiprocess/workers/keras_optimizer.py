"""The distributed optimizer of Keras 3: what `fit` and custom steps do with it on several ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import horovod.tensorflow as stock
import keras
import numpy as np
import tensorflow as tf

import hvd_compress.keras as hvd
import hvd_compress.tensorflow as htf
from hvd_compress import (
    BlockSign,
    ConfigurationError,
    DistEFBlockSGDM,
    PowerSGD,
    RankDisagreementError,
    Simulator,
    UsageError,
    names,
)

from .harness import check
from .keras_models import batch, compiled, distributed, fit, joined, loss, memory, model, own, weights
from .tensorflow_common import assert_close, assert_equal_on_ranks, assert_same_bits, gathered, gradients, raises

optimizers = keras.optimizers
# Several names mean one compressor.
ALIASES = {"bfloat16", "float16", "identity", "none", "localtopk"}
METHODS = sorted(set(names()) - ALIASES)


class _EveryEpoch(keras.callbacks.Callback):
    """Compares the weights of all ranks after every epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs = 0

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        assert_equal_on_ranks(weights(self.model))
        self.epochs += 1


@check(min_ranks=2, launchers=("gloo",), cases=METHODS)
def weights_are_equal_on_ranks_after_every_epoch(name: str) -> None:
    made = compiled(model(), distributed(optimizers.SGD(0.01), name))
    before, every = weights(made), _EveryEpoch()
    fit(made, 2, epochs=2, callbacks=[every])
    after = weights(made)
    assert every.epochs == 2
    assert all(np.isfinite(x.numpy()).all() for x in after.values())
    assert any(not np.array_equal(after[path], x) for path, x in before.items())


# --- dense equals one process on the joined batch ---


def _scheduled() -> Any:
    return optimizers.SGD(optimizers.schedules.ExponentialDecay(0.5, 2, 0.5), momentum=0.9)


PLAIN: dict[str, Callable[[], Any]] = {
    "sgd-momentum": lambda: optimizers.SGD(0.3, momentum=0.9, nesterov=True),
    "adam": lambda: optimizers.Adam(0.05),
    "adamw-ema": lambda: optimizers.AdamW(0.05, weight_decay=0.1, use_ema=True, ema_overwrite_frequency=3),
    "clipnorm": lambda: optimizers.SGD(0.3, momentum=0.9, clipnorm=0.05),
    "clipvalue": lambda: optimizers.SGD(0.3, clipvalue=0.01),
    "global-clipnorm": lambda: optimizers.SGD(0.3, global_clipnorm=0.05),
    "accumulation": lambda: optimizers.SGD(0.3, momentum=0.9, clipnorm=0.05, gradient_accumulation_steps=2),
    "schedule": _scheduled,
}
EXACT = 1e-9  # models are of float64, Keras computes with a learning rate of float32 on both sides


@check(cases=PLAIN)
def dense_equals_one_process_on_the_joined_batch(name: str) -> None:
    here = compiled(model("float64"), distributed(PLAIN[name]()))
    fit(here, 6)
    alone = compiled(model("float64"), PLAIN[name]())
    fit(alone, 6, batches=joined)
    assert_close(weights(here), weights(alone), EXACT)
    assert_equal_on_ranks(weights(here))


@check(cases=["eagerly", "several steps in one execution"])
def ways_to_run_give_the_same(way: str) -> None:
    options: dict[str, Any] = {"run_eagerly": True} if way == "eagerly" else {"steps_per_execution": 3}
    trained = []
    for more in ({}, options):
        made = compiled(model("float64"), distributed(optimizers.Adam(0.05), PowerSGD(rank=2)), **more)
        fit(made, 3)
        trained.append({**weights(made), **memory(made.optimizer)})
    assert_close(trained[1], trained[0], EXACT)
    assert trained[0]["step"] == 3


@check(cases=[False, True])
def steps_that_accumulate_send_nothing(run_eagerly: bool) -> None:
    optimizer = distributed(optimizers.SGD(0.1, gradient_accumulation_steps=3), PowerSGD(rank=2))
    made = compiled(model(), optimizer, run_eagerly=run_eagerly)
    before = weights(made)
    fit(made, 2)
    assert_same_bits(weights(made), before)
    assert _steps(optimizer) == 0
    fit(made, 4, first=2)
    assert _steps(optimizer) == 2
    assert_equal_on_ranks(weights(made))


def _steps(optimizer: Any) -> int:
    exchange = optimizer.variable_exchange.exchange
    return 0 if exchange is None else int(exchange.step.numpy())


# --- loss scaling ---

ORDERS: dict[str, Callable[[Any], Any]] = {
    "outside": lambda plain: distributed(optimizers.LossScaleOptimizer(plain, initial_scale=64.0), PowerSGD(rank=2)),
    "inside": lambda plain: optimizers.LossScaleOptimizer(distributed(plain, PowerSGD(rank=2)), initial_scale=64.0),
}


@check(cases=ORDERS)
def all_ranks_skip_together_where_one_overflows(order: str) -> None:
    optimizer = ORDERS[order](optimizers.SGD(0.1, momentum=0.9))
    made = compiled(model(), optimizer)
    inner = optimizer.inner_optimizer
    fit(made, 2)
    before = {**weights(made), **memory(inner)}
    assert optimizer.dynamic_scale.numpy() == 64.0

    def overflowing(step: int) -> tuple[np.ndarray, np.ndarray]:
        x, y = own(step)
        return (x * np.float32(np.inf) if stock.rank() == stock.size() - 1 else x), y

    fit(made, 1, first=2, batches=overflowing)
    assert optimizer.dynamic_scale.numpy() == 32.0
    assert_same_bits({**weights(made), **memory(inner)}, before)
    fit(made, 2, first=3)
    assert _steps(inner) == 4
    after = memory(inner)
    assert all(np.isfinite(x.numpy()).all() for x in after.values())
    assert_equal_on_ranks(weights(made))


@check()
def memories_of_loss_scaling_are_in_unscaled_numbers() -> None:
    trained = []
    for scale in (1.0, 1024.0):
        optimizer = optimizers.LossScaleOptimizer(
            distributed(optimizers.SGD(0.1), PowerSGD(rank=2)), initial_scale=scale
        )
        made = compiled(model("float64"), optimizer)
        fit(made, 3)
        trained.append({**weights(made), **memory(optimizer.inner_optimizer)})
    assert_close(trained[1], trained[0], EXACT)


@check(cases=[False, True])
def a_mixed_precision_model_is_scaled_by_compile(run_eagerly: bool) -> None:
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        made = compiled(
            model(keras.config.dtype_policy()),
            distributed(optimizers.SGD(0.1, gradient_accumulation_steps=2), PowerSGD(rank=2)),
            run_eagerly=run_eagerly,
        )
    finally:
        keras.config.set_dtype_policy(policy)
    assert type(made.optimizer) is optimizers.LossScaleOptimizer
    scale = 2.0**15

    def overflowing(step: int) -> tuple[np.ndarray, np.ndarray]:
        x, y = own(step)
        return (x * np.float32(np.inf) if step == 1 and stock.rank() == 0 else x), y

    fit(made, 5, batches=overflowing)
    assert made.optimizer.dynamic_scale.numpy() == scale / 2
    assert _steps(made.optimizer.inner_optimizer) == 2  # four of five steps accumulate, by two
    assert all(np.isfinite(x.numpy()).all() for x in weights(made).values())
    assert_equal_on_ranks(weights(made))


@check()
def loss_scaling_of_plain_optimizers_asks_nobody() -> None:
    optimizer = optimizers.LossScaleOptimizer(optimizers.SGD(0.1), initial_scale=64.0)
    made = compiled(model(), optimizer)
    if stock.rank() == 0:  # a collective would wait for the others
        fit(made, 1, batches=lambda step: (own(step)[0] * np.float32(np.inf), own(step)[1]))
        assert optimizer.dynamic_scale.numpy() == 32.0


@check(cases=ORDERS)
def an_optimizer_of_one_rank_alone_shifts_no_names(order: str) -> None:
    if stock.rank() == 0:  # as where it loads a model to look at it
        distributed(optimizers.SGD(0.1))
    made = compiled(model(), ORDERS[order](optimizers.SGD(0.1)))
    fit(made, 2)
    assert _steps(made.optimizer.inner_optimizer) == 2
    assert_equal_on_ranks(weights(made))


class OwnFinite(optimizers.LossScaleOptimizer):
    """Judges gradients by itself."""

    def check_finite(self, grads: Any) -> Any:
        return tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in grads])


@check(cases=ORDERS)
def loss_scaling_that_asks_nobody_is_refused(order: str) -> None:
    told = ("OwnFinite", "check_finite")
    if order == "outside":
        plain = optimizers.SGD(0.1)
        with raises(ConfigurationError, *told):
            distributed(OwnFinite(plain), PowerSGD(rank=2), backward_passes_per_step=2)
        assert plain.gradient_accumulation_steps is None and not hasattr(plain, "variable_exchange")
    else:
        for run_eagerly in (False, True):
            made = compiled(model(), OwnFinite(distributed(optimizers.SGD(0.1))), run_eagerly=run_eagerly)
            before = weights(made)
            with raises(ConfigurationError, *told):
                fit(made, 1)
            assert_same_bits(weights(made), before)
    alone = compiled(model(), OwnFinite(optimizers.SGD(0.1)))
    fit(alone, 1)  # of plain optimizers it may


@check(cases=["plain", *ORDERS])
def gradients_that_are_exchanged_already_are_refused(order: str) -> None:
    optimizer = distributed(optimizers.SGD(0.1)) if order == "plain" else ORDERS[order](optimizers.SGD(0.1))
    made = model()
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(made(own(0)[0]))
    tape = htf.DistributedGradientTape(tape)
    means = tape.gradient(value, made.trainable_variables)
    with raises(UsageError, "exchanged already", "not both"):
        optimizer.apply_gradients(zip(means, made.trainable_variables, strict=True))


@check(cases=["global_clipnorm", "clipnorm"])
def a_norm_that_differs_between_ranks_is_refused(how: str) -> None:
    made, clipping = model(), optimizers.SGD(0.5, **{how: 1e-3})
    optimizer = hvd.PartialDistributedOptimizer(clipping, local_layers=[made.layers[-1]], allow_larger=True)
    made = compiled(made, optimizer)
    if how == "global_clipnorm":
        with raises(ConfigurationError, "global_clipnorm=0.001", "clipvalue"):
            fit(made, 1)
        return
    fit(made, 3)
    assert_equal_on_ranks({name: v for name, v in weights(made).items() if name.startswith("first")})


@check(min_ranks=2, cases=["passes", "averages"])
def accumulation_that_differs_between_ranks_is_refused(what: str) -> None:
    last = stock.rank() == stock.size() - 1
    passes = 1 + last if what == "passes" else 2
    averages = last if what == "averages" else False
    optimizer = distributed(optimizers.SGD(0.1), backward_passes_per_step=passes, average_aggregated_gradients=averages)
    made = compiled(model(), optimizer)
    with raises(RankDisagreementError, "accumulation_steps" if what == "passes" else "average_aggregated_gradients"):
        fit(made, 4)


@check()
def numbers_that_keras_gives_layers_make_no_difference() -> None:
    """A rank that has made another model first has other names for the same layers."""

    def numbered() -> keras.Model:
        return keras.Sequential([keras.layers.Input((12,)), keras.layers.Dense(10), keras.layers.Dense(6)])

    if stock.rank() == 0:
        numbered()
    made = compiled(numbered(), distributed(optimizers.SGD(0.1), PowerSGD(rank=2)))
    fit(made, 3, callbacks=[hvd.callbacks.BroadcastGlobalVariablesCallback(0)])
    assert _steps(made.optimizer) == 3
    assert_equal_on_ranks({str(i): v.value for i, v in enumerate(made.trainable_variables)})


# --- steps of one's own ---

SHAPES = {"a": (9, 7), "b": (7,)}


@check(cases=["changed", "schedule"])
def the_live_learning_rate_reaches_the_compressor(how: str) -> None:
    rates = [0.5, 0.5, 0.25, 0.125]
    boundaries = optimizers.schedules.PiecewiseConstantDecay([1, 2], rates[1:])
    compressor = DistEFBlockSGDM(BlockSign(block=256))
    optimizer = distributed(optimizers.SGD(0.5 if how == "changed" else boundaries), compressor)
    variables = [keras.Variable(np.zeros(shape, np.float32), name=name) for name, shape in SHAPES.items()]
    simulator = Simulator(compressor, stock.size(), learning_rate=rates[0], allow_larger=True)
    apply = tf.function(lambda grads: optimizer.apply(grads, variables), autograph=False)
    for step, rate in enumerate(rates):
        if how == "changed":
            optimizer.learning_rate = rate
        simulator.learning_rate = rate
        everyone = gradients(step, SHAPES)
        before = [variable.numpy() for variable in variables]
        apply([everyone[stock.rank()][name] for name in SHAPES])
        # As the exchange names them: duplicates are numbered, these are not.
        mean = simulator.step(
            [{v.path: own_[n] for v, n in zip(reversed(variables), reversed(SHAPES), strict=True)} for own_ in everyone]
        )[0]
        for variable, old in zip(variables, before, strict=True):
            assert_close({"": tf.constant(variable.numpy())}, {"": old - rate * mean[variable.path].numpy()}, 1e-5)


class _Rivals(keras.Model):
    """Two networks with an optimizer each, trained in turn in one step."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = model(seed=1), model(seed=2)

    def prepare(self, left: Any, right: Any) -> None:
        self.compile(jit_compile=False, loss=loss())
        self.left_optimizer, self.right_optimizer = left, right

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y = data
        for network, optimizer in ((self.left, self.left_optimizer), (self.right, self.right_optimizer)):
            with tf.GradientTape() as tape:
                # Each learns where the other is wrong.
                value = self.loss(y, network(x)) + 0.1 * tf.reduce_mean(self.left(x) * self.right(x))
            grads = tape.gradient(value, network.trainable_variables)
            optimizer.apply_gradients(zip(grads, network.trainable_variables, strict=True))
        return {"loss": value}


@check()
def several_optimizers_in_one_step() -> None:
    made = _Rivals()
    made.prepare(distributed(optimizers.Adam(0.05), PowerSGD(rank=2)), distributed(optimizers.SGD(0.1), "scalecom"))
    before = {**weights(made.left), **{f"right/{k}": v for k, v in weights(made.right).items()}}
    fit(made, 4)
    after = {**weights(made.left), **{f"right/{k}": v for k, v in weights(made.right).items()}}
    assert_equal_on_ranks(after)
    assert _steps(made.left_optimizer) == _steps(made.right_optimizer) == 4
    assert all(not np.array_equal(after[name], x) for name, x in before.items() if name.endswith("kernel"))


@check()
def frozen_layers_are_left_out() -> None:
    trained = []
    for batches, wrap in ((own, distributed), (joined, lambda plain: plain)):
        made = model("float64")
        made.get_layer("first").trainable = False
        compiled(made, wrap(optimizers.SGD(0.1)))
        frozen = made.get_layer("first").kernel.numpy()
        fit(made, 3, batches=batches)
        assert np.array_equal(made.get_layer("first").kernel.numpy(), frozen)
        trained.append(weights(made))
    assert list(trained[0]) == ["last/kernel", "last/bias"]
    assert_close(trained[0], trained[1], EXACT)


def _with_words() -> keras.Model:
    table, last = (keras.initializers.RandomUniform(seed=seed) for seed in (3, 4))
    return keras.Sequential(
        [
            keras.layers.Input((FEATURES_OF_TEXT,), dtype="int32"),
            keras.layers.Embedding(11, 4, embeddings_initializer=table, dtype="float64", name="words"),
            keras.layers.Flatten(name="flat"),
            keras.layers.Dense(6, kernel_initializer=last, dtype="float64", name="last"),
        ],
        name="text",
    )


FEATURES_OF_TEXT = 5


@check(cases=[False, True])
def embeddings_equal_one_process_on_the_joined_batch(sparse_as_dense: bool) -> None:
    def words(rank: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        draw = np.random.default_rng([7, rank, step])
        return draw.integers(0, 11, (8, FEATURES_OF_TEXT)), draw.integers(0, 6, 8)

    def together(step: int) -> tuple[np.ndarray, np.ndarray]:
        parts = [words(rank, step) for rank in range(stock.size())]
        return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])

    here = compiled(_with_words(), distributed(optimizers.SGD(0.5, momentum=0.9), sparse_as_dense=sparse_as_dense))
    fit(here, 3, batches=lambda step: words(stock.rank(), step))
    alone = compiled(_with_words(), optimizers.SGD(0.5, momentum=0.9))
    fit(alone, 3, batches=together)
    assert_close(weights(here), weights(alone), EXACT)
    compressed = {name for unit in here.optimizer.variable_exchange.exchange.plan.units for name, _ in unit.parameters}
    assert ("text/words/embeddings" in compressed) == sparse_as_dense


# --- arguments ---


@check(cases=[False, True])
def backward_passes_accumulate(average: bool) -> None:
    optimizer = distributed(
        optimizers.SGD(0.1), backward_passes_per_step=2, average_aggregated_gradients=average, name="Wide"
    )
    here = compiled(model("float64"), optimizer)
    fit(here, 4)
    alone = compiled(model("float64"), optimizers.SGD(0.1 if average else 0.2, gradient_accumulation_steps=2))
    fit(alone, 4, batches=joined)
    assert_close(weights(here), weights(alone), 1e-6)  # 0.2 is not 2 * 0.1 in float32


@check()
def sums_are_sums() -> None:
    here = compiled(model("float64"), distributed(optimizers.SGD(0.125), op=hvd.Sum))
    fit(here, 2)
    alone = compiled(model("float64"), optimizers.SGD(0.125 * stock.size()))
    fit(alone, 2, batches=joined)
    assert_close(weights(here), weights(alone), EXACT)


@check(cases=["groups", "lists", "predivided"])
def arguments_that_change_nothing_but_the_way(what: str) -> None:
    made = model("float64")
    variables = made.trainable_variables
    options: dict[str, Any] = {
        "groups": {"groups": 2},
        "lists": {"groups": [[variables[0], variables[3]], [variables[1]]]},
        "predivided": {"gradient_predivide_factor": 4.0},
    }[what]
    here = compiled(made, distributed(optimizers.SGD(0.1), **options))
    fit(here, 2)
    plain = compiled(model("float64"), distributed(optimizers.SGD(0.1)))
    fit(plain, 2)
    assert_close(weights(here), weights(plain), EXACT)


@check(min_ranks=2)
def local_variables_and_layers_stay_with_their_rank() -> None:
    made = model("float64")
    optimizer = hvd.PartialDistributedOptimizer(
        optimizers.SGD(0.1), local_layers=[made.get_layer("first")], allow_larger=True, scale_local_gradients=False
    )
    compiled(made, optimizer)
    fit(made, 1)
    alone = compiled(model("float64"), optimizers.SGD(0.1))
    fit(alone, 1)
    found, own_step = weights(made), weights(alone)
    assert_close({"k": found["first/kernel"]}, {"k": own_step["first/kernel"]}, EXACT)
    shared = {name: x for name, x in found.items() if name.startswith("last/")}
    assert_equal_on_ranks(shared)
    kernels = gathered(found["first/kernel"].numpy())
    assert not np.array_equal(kernels[0], kernels[-1])


@check(min_ranks=2)
def only_the_ranks_of_the_process_set_exchange() -> None:
    from .process_sets import SETS

    made = compiled(model("float64"), distributed(optimizers.SGD(0.1), process_set=SETS["last"]))
    fit(made, 2)
    alone = compiled(model("float64"), optimizers.SGD(0.1))
    fit(alone, 2)
    assert_close(weights(made), weights(alone), EXACT)


@check()
def compiling_by_xla_is_refused_before_anything_is_sent() -> None:
    made = compiled(model(), distributed(optimizers.SGD(0.1), PowerSGD(rank=2)), jit_compile=True)
    with raises(ConfigurationError, "jit_compile=False"):
        fit(made, 1)
    assert made.optimizer.variable_exchange.exchange is None
    compiled(made, made.optimizer)
    fit(made, 1)
    assert _steps(made.optimizer) == 1


@check()
def a_class_that_applies_gradients_in_its_own_way_is_refused() -> None:
    class Own(optimizers.SGD):
        def apply(self, grads: Any, trainable_variables: Any = None) -> None:
            for gradient, variable in zip(grads, trainable_variables, strict=True):
                variable.assign_sub(gradient)

    made = compiled(model(), distributed(Own(0.1)))
    with raises(UsageError, "Own", "DistributedGradientTape"):
        fit(made, 1)


@check()
def wrong_uses_say_what_to_do_instead() -> None:
    plain = optimizers.SGD(0.1)
    made = hvd.DistributedOptimizer(plain)
    assert made is plain
    with raises(ConfigurationError, "wrap it once"):
        hvd.DistributedOptimizer(plain)
    with raises(ConfigurationError, "wrap it once"):
        hvd.DistributedOptimizer(optimizers.LossScaleOptimizer(plain))
    import horovod.tensorflow.keras as stock_keras

    with raises(ConfigurationError, "Horovod's own DistributedOptimizer"):
        hvd.DistributedOptimizer(stock_keras.DistributedOptimizer(optimizers.SGD(0.1)))
    with raises(ConfigurationError, "hvd.Average or hvd.Sum"):
        hvd.DistributedOptimizer(optimizers.SGD(0.1), op=stock.Adasum)
    with raises(ConfigurationError, "MultiOptimizer", "each of those"):
        hvd.DistributedOptimizer(optimizers.MultiOptimizer(lambda variable: plain))
    with raises(ConfigurationError, "no optimizer of Keras 3", "hvd_compress.tensorflow"):
        hvd.DistributedOptimizer("sgd")
    with raises(ConfigurationError, "momentum of its own", "momentum=0.9"):
        hvd.DistributedOptimizer(optimizers.SGD(0.1, momentum=0.9), compression=DistEFBlockSGDM(BlockSign(block=256)))
    with raises(ConfigurationError, "momentum of its own", "beta_1=0.9"):
        hvd.DistributedOptimizer(optimizers.Adam(0.1), compression=DistEFBlockSGDM(BlockSign(block=256)))
    with raises(ConfigurationError, "weight_decay=0.1"):
        hvd.DistributedOptimizer(
            optimizers.SGD(0.1, weight_decay=0.1), compression=DistEFBlockSGDM(BlockSign(block=256), weight_decay=0.1)
        )
    with raises(ConfigurationError, "backward_passes_per_step=3", "gradient_accumulation_steps=2"):
        hvd.DistributedOptimizer(optimizers.SGD(0.1, gradient_accumulation_steps=2), backward_passes_per_step=3)
    with raises(ConfigurationError, "backward_passes_per_step=0"):
        hvd.DistributedOptimizer(optimizers.SGD(0.1), backward_passes_per_step=0)
    with raises(ConfigurationError, "model.build"):
        hvd.PartialDistributedOptimizer(optimizers.SGD(0.1), local_layers=[keras.layers.Dense(3)])


@check()
def groups_of_optimizers_are_made_distributed_one_by_one() -> None:
    chosen = {"first": distributed(optimizers.SGD(0.1)), "last": distributed(optimizers.Adam(0.01))}
    here = compiled(model("float64"), optimizers.MultiOptimizer(lambda variable: chosen[variable.path.split("/")[-2]]))
    fit(here, 2)
    plain = {"first": optimizers.SGD(0.1), "last": optimizers.Adam(0.01)}
    alone = compiled(model("float64"), optimizers.MultiOptimizer(lambda variable: plain[variable.path.split("/")[-2]]))
    fit(alone, 2, batches=joined)
    assert_close(weights(here), weights(alone), EXACT)


@check(min_ranks=2)
def ranks_that_differ_in_the_compressor_are_told_so() -> None:
    from hvd_compress import RankDisagreementError

    made = compiled(model(), distributed(optimizers.SGD(0.1), PowerSGD(rank=1 + stock.rank())))
    with raises(RankDisagreementError):
        fit(made, 1)


@check(min_ranks=2)
def replicas_that_differ_are_told_so() -> None:
    made = compiled(model(seed=stock.rank()), distributed(optimizers.SGD(0.1)))
    try:
        fit(made, 2)
    except tf.errors.OpError as error:  # what comes out of a graph that Keras has made
        assert "ReplicaDivergenceError" in error.message and "small/first/kernel" in error.message, error
        assert "broadcast" in error.message
    else:
        raise AssertionError("nothing was raised")


@check()
def a_script_as_for_stock_horovod() -> None:
    hvd.init()
    optimizer = hvd.DistributedOptimizer(optimizers.SGD(0.01 * hvd.size(), momentum=0.9))
    made = model(seed=hvd.rank())
    made.compile(loss=loss(), optimizer=optimizer, metrics=["accuracy"], jit_compile=False)
    callbacks = [hvd.callbacks.BroadcastGlobalVariablesCallback(0), hvd.callbacks.MetricAverageCallback()]
    x, y = batch(0, hvd.rank())
    made.fit(x, y, batch_size=4, callbacks=callbacks, epochs=2, verbose=0)
    assert_equal_on_ranks(weights(made))
