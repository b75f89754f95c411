"""What hvd_compress.keras takes for granted of Keras, and what it leaves as it was; no second rank is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# A process of its own: Horovod is initialised there, for TensorFlow alone.
_START = """
import warnings
warnings.simplefilter("error")
import keras
import numpy as np
import tensorflow as tf
import hvd_compress.keras as hvd
from hvd_compress import PowerSGD
hvd.init()
"""

_ORDER = """
called = []
class Recorded(keras.optimizers.SGD):
    def _backend_apply_gradients(self, grads, trainable_variables):
        called.append("_backend_apply_gradients")
        super()._backend_apply_gradients(grads, trainable_variables)
    def _backend_increment_gradient_accumulators(self, grads, acc_grads):
        called.append("accumulate")
        super()._backend_increment_gradient_accumulators(grads, acc_grads)
    def _clip_gradients(self, grads):
        called.append(("_clip_gradients", [float(g[0]) for g in grads]))
        return super()._clip_gradients(grads)
    def _apply_weight_decay(self, variables):
        called.append("_apply_weight_decay")
        super()._apply_weight_decay(variables)
    def update_step(self, gradient, variable, learning_rate):
        called.append("update_step")
        super().update_step(gradient, variable, learning_rate)

variable = keras.Variable(np.zeros(1, np.float32))
optimizer = Recorded(0.1, weight_decay=0.1, clipvalue=0.5, gradient_accumulation_steps=2, loss_scale_factor=4.0)
optimizer.apply([tf.constant([8.0])], [variable])
assert called == ["_backend_apply_gradients", "accumulate"], called
called.clear()
optimizer.apply([tf.constant([16.0])], [variable])
# Unscaled (2 and 4), averaged, not clipped yet.
expected = ["_backend_apply_gradients", ("_clip_gradients", [3.0]), "_apply_weight_decay", "update_step"]
assert called == expected, called
"""

_LOSS_SCALE = """
asked = []
class Inner(keras.optimizers.SGD):
    def apply(self, grads, trainable_variables=None):
        asked.append("apply")
        super().apply(grads, trainable_variables)
class Outer(keras.optimizers.LossScaleOptimizer):
    def check_finite(self, grads):
        asked.append("check_finite")
        return super().check_finite(grads)
variable = keras.Variable(np.zeros(1, np.float32))
outer = Outer(Inner(0.1))
outer.apply([tf.constant([1.0])], [variable])
outer.apply([tf.constant([np.inf])], [variable])
assert asked == ["check_finite", "apply", "check_finite"], asked
"""

_UNTOUCHED = """
for make in (
    lambda: keras.optimizers.Adam(0.1, clipnorm=1.0, use_ema=True, name="mine"),
    lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1, momentum=0.5, name="sgd"), name="mine"),
):
    plain, given = make(), make()
    made = hvd.DistributedOptimizer(given, compression=PowerSGD(rank=2))
    assert made is given and type(made) is type(plain)
    assert made.get_config() == plain.get_config()
    assert keras.optimizers.serialize(made) == keras.optimizers.serialize(plain)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(made))
    assert type(again) is type(plain) and not hasattr(getattr(again, "inner_optimizer", again), "variable_exchange")
    variables = [keras.Variable(np.zeros((8, 6), np.float32), name="kernel")]
    for optimizer in (plain, made):
        optimizer.apply([tf.ones((8, 6))], variables)
    assert [v.path for v in made.variables] == [v.path for v in plain.variables]
"""

_MISSING = """
from hvd_compress import ConfigurationError
class Other(keras.optimizers.SGD):
    _clip_gradients = None
try:
    hvd.DistributedOptimizer(Other(0.1))
except ConfigurationError as error:
    assert "_clip_gradients" in str(error) and "Keras" in str(error)
else:
    raise AssertionError
"""

_FLOAT8 = """
from hvd_compress import ConfigurationError
variable = keras.Variable(np.zeros(1, np.float32), name="scale")
variable.overwrite_with_gradient = True
try:
    hvd.DistributedOptimizer(keras.optimizers.SGD(0.1)).apply([tf.ones(1)], [variable])
except ConfigurationError as error:
    assert "scale" in str(error) and "float8" in str(error)
else:
    raise AssertionError
"""

_NAMES = """
import horovod.keras, horovod.tensorflow.keras
from hvd_compress import ConfigurationError
for stock in (horovod.keras, horovod.tensorflow.keras):
    for name in dir(stock):
        if not name.startswith("_"):
            assert hasattr(hvd, name) and name in dir(hvd), name
assert hvd.size is horovod.keras.size and hvd.Compression is horovod.keras.Compression
assert hvd.DistributedOptimizer is not horovod.keras.DistributedOptimizer
assert hvd.load_model is not horovod.keras.load_model
assert hvd.callbacks.__name__ == "hvd_compress.keras.callbacks"
assert not hasattr(hvd, "no_such_name")
for use in (lambda: hvd.elastic.run, lambda: hvd.elastic.KerasState):
    try:
        use()
    except ConfigurationError as error:
        assert "elastic" in str(error)
    else:
        raise AssertionError
from hvd_compress.keras import *
assert DistributedOptimizer is hvd.DistributedOptimizer
"""

_REPLICAS = """
import hvd_compress.tensorflow as htf
from hvd_compress import ConfigurationError
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
optimizer = hvd.DistributedOptimizer(keras.optimizers.SGD(0.1))
with strategy.scope():
    variable = tf.Variable(tf.ones((4, 3)))
def by_tape():
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(variable)
    htf.DistributedGradientTape(tape).gradient(loss, [variable])
with strategy.scope():
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])
    model.compile(optimizer, "mse", jit_compile=False)
for use in (lambda: strategy.run(by_tape), lambda: model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)):
    try:
        use()
    except ConfigurationError as error:
        assert "tf.distribute" in str(error)
    else:
        raise AssertionError
"""

_SAVE = """
import sys
def made(optimizer):
    kernel = keras.initializers.GlorotUniform(seed=1)
    layer = keras.layers.Dense(10, kernel_initializer=kernel, name="only")
    model = keras.Sequential([keras.layers.Input((12,)), layer])
    model.compile(hvd.DistributedOptimizer(optimizer, compression=PowerSGD(rank=2), allow_larger=True), "mse")
    return model
def train(model, steps):
    for step in steps:
        draw = np.random.default_rng(step)
        model.train_on_batch(draw.standard_normal((8, 12)), draw.standard_normal((8, 10)))
def bits(model):
    exchange = model.optimizer.variable_exchange.exchange
    values = [*model.weights, *model.optimizer.variables, *exchange.state.variables]
    return b"".join(np.asarray(v.numpy()).tobytes() for v in values)
warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
what, folder = sys.argv[1:]
model = made(keras.optimizers.Adam(0.05))
checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
if what == "uninterrupted":
    train(model, range(3))
    model.save(folder + "/model.keras")
    checkpoint.save(folder + "/state")
    train(model, range(3, 6))
    open(folder + "/expected", "wb").write(bits(model))
else:
    if what == "keras":
        model = hvd.load_model(folder + "/model.keras", compression=PowerSGD(rank=2), allow_larger=True)
    else:
        checkpoint.restore(tf.train.latest_checkpoint(folder))
    train(model, range(3, 6))
    assert bits(model) == open(folder + "/expected", "rb").read()
"""


def _run(script: str, *arguments: str) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HOROVOD_")}
    environment |= {"HOROVOD_CONTROLLER": "gloo", "HOROVOD_CPU_OPERATIONS": "gloo", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment |= {"KERAS_BACKEND": "tensorflow", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _START + script, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.timeout(300)
def test_keras_exchanges_where_it_is_expected_and_is_left_as_it_was() -> None:
    """The order of Keras's own calls; its loss scaling; class and configuration; what is refused; names."""
    _run(_ORDER + _LOSS_SCALE + _UNTOUCHED + _MISSING + _FLOAT8 + _NAMES)


@pytest.mark.timeout(900)
def test_another_process_goes_on_bit_for_bit(tmp_path: Path) -> None:
    _run(_SAVE, "uninterrupted", str(tmp_path))
    for way in ("keras", "checkpoint"):
        _run(_SAVE, way, str(tmp_path))


@pytest.mark.timeout(300)
def test_several_replicas_in_one_process_are_refused() -> None:
    _run(_REPLICAS)
