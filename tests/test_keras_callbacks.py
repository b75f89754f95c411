"""What is true of the callbacks for Keras in one process: names, refusals, and which Keras they are for.

Each in a process of its own: this one must not import TensorFlow for tests of other things.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hvd_compress.horovod import launch

ALONE = {
    "HOROVOD_CONTROLLER": "gloo",
    "HOROVOD_CPU_OPERATIONS": "gloo",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "OMP_NUM_THREADS": "1",
    "KERAS_BACKEND": "tensorflow",
}
STOCK_NAMES = {
    "BestModelCheckpoint",
    "BroadcastGlobalVariablesCallback",
    "LearningRateScheduleCallback",
    "LearningRateWarmupCallback",
    "MetricAverageCallback",
}


def run(program: str, **environment: str) -> str:
    """Return what a Python program prints; it must end well."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("HOROVOD_", "TF_USE_LEGACY_KERAS"))}
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=plain | ALONE | environment,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout


NAMES = """
import hvd_compress.keras as ours
import hvd_compress.tensorflow.keras as spelled
from hvd_compress.tensorflow.keras.callbacks import MetricAverageCallback
import inspect, horovod.keras.callbacks as stock
assert MetricAverageCallback is ours.callbacks.MetricAverageCallback
assert spelled.DistributedOptimizer is ours.DistributedOptimizer and spelled.load_model is ours.load_model
assert spelled.init is ours.init and spelled.rank is ours.rank
assert set(dir(ours)) - {n for n in dir(ours) if n.startswith("_")} <= set(dir(spelled))
assert set(ours.callbacks.__all__) == set(spelled.callbacks.__all__)
for name in ours.callbacks.__all__:
    assert getattr(spelled.callbacks, name) is getattr(ours.callbacks, name), name
for name in ("BroadcastGlobalVariablesCallback", "MetricAverageCallback", "LearningRateScheduleCallback",
             "LearningRateWarmupCallback"):
    # Every call that Horovod takes, ours takes with the same meaning.
    theirs, own = (inspect.signature(getattr(m, name)).parameters for m in (stock, ours.callbacks))
    assert list(own) == list(theirs), name
    assert all(own[p].default == theirs[p].default for p in own), name
print(*sorted(ours.callbacks.__all__))
"""


@pytest.mark.timeout(120)
def test_names_and_signatures_are_those_of_horovod():
    assert set(run(NAMES).split()) >= STOCK_NAMES


REFUSALS = """
import keras
import hvd_compress.keras as hvd
from hvd_compress import ConfigurationError, UsageError

def refused(error, what, *fragments):
    try:
        what()
    except error as raised:
        assert type(raised) is error and all(f in str(raised) for f in fragments), raised
    else:
        raise AssertionError(fragments)

for name in ("CommitStateCallback", "UpdateBatchStateCallback", "UpdateEpochStateCallback"):
    refused(ConfigurationError, lambda: getattr(hvd.callbacks, name)(None), name, "elastic jobs are not supported")
model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
callback = hvd.callbacks.MetricAverageCallback()
refused(UsageError, lambda: callback.set_model(model), "hvd.init()")
hvd.init()
callback.set_model(model)
refused(ConfigurationError, lambda: callback.set_model(object()), "MetricAverageCallback", "Keras 3", "tf_keras")
refused(ConfigurationError, lambda: hvd.callbacks.LearningRateScheduleCallback(None, 1.0), "initial_lr=None")
refused(ConfigurationError, lambda: hvd.callbacks.LearningRateWarmupCallback(0.1, warmup_epochs=0), "warmup_epochs=0")
"""


@pytest.mark.timeout(120)
def test_what_cannot_work_is_refused():
    run(REFUSALS)


LEGACY = """
import sys
import numpy as np, tensorflow as tf
import hvd_compress.tensorflow.keras as hvd
from hvd_compress.tensorflow.keras import callbacks
from hvd_compress import ConfigurationError
import hvd_compress.tensorflow as tensorflow_side
assert "hvd_compress.keras" not in sys.modules
assert hvd.callbacks is callbacks and hvd.DistributedOptimizer is tensorflow_side.DistributedOptimizer
assert issubclass(callbacks.MetricAverageCallback, tf.keras.callbacks.Callback)
hvd.init()
model = tf.keras.Sequential([tf.keras.layers.Input((4,)), tf.keras.layers.Dense(3)])
model.compile(tf.keras.optimizers.SGD(9.0), "mse")
x = np.ones((8, 4), "float32")
used = [
    callbacks.BroadcastGlobalVariablesCallback(0),
    callbacks.MetricAverageCallback(),
    callbacks.LearningRateWarmupCallback(0.5, warmup_epochs=1),
    callbacks.LearningRateScheduleCallback(0.5, 0.1, start_epoch=1),
]
history = model.fit(x, x[:, :3], batch_size=4, epochs=3, verbose=0, callbacks=used).history
assert np.allclose(history["lr"], [0.5, 0.5, 0.05]), history["lr"]
assert np.isfinite(history["loss"]).all()
# The gradient is x, so that steps are rate x u with u <- m u + x, whatever the rates were before.
rates = [0.1, 0.05, 0.2, 0.01]
weight = tf.keras.Sequential([tf.keras.layers.Input((1,)), tf.keras.layers.Dense(1, use_bias=False)])
weight.set_weights([np.array([[0.5]])])
weight.compile(tf.keras.optimizers.SGD(0.1, momentum=0.9), lambda y, p: tf.reduce_mean(p))
x = np.arange(1.0, 5.0).reshape(4, 1)
schedule = callbacks.LearningRateScheduleCallback(1.0, lambda epoch: rates[round(epoch * 4)], staircase=False)
weight.fit(x, x, batch_size=1, shuffle=False, verbose=0, callbacks=[schedule])
velocity, value = 0.0, 0.5
for step, rate in enumerate(rates):
    velocity = 0.9 * velocity + step + 1
    value -= rate * velocity
assert np.isclose(weight.get_weights()[0][0, 0], value, rtol=1e-5), (weight.get_weights(), value)
for refused in (lambda: callbacks.CommitStateCallback(None), lambda: hvd.elastic.run):
    try:
        refused()
    except ConfigurationError as error:
        assert "elastic jobs are not supported" in str(error)
    else:
        raise AssertionError
"""


@pytest.mark.timeout(120)
def test_callbacks_for_tf_keras_work_beside_keras_3():
    """Horovod hands its own the backend of Keras 3, on which they crash."""
    pytest.importorskip("tf_keras", reason="tf_keras is not installed")
    run(LEGACY, TF_USE_LEGACY_KERAS="1")


UNDISTRIBUTED = """
import numpy as np, tensorflow as tf
import horovod.tensorflow.keras as stock
import hvd_compress.tensorflow.keras as hvd
from hvd_compress import ConfigurationError

hvd.init()
x = np.random.default_rng(hvd.rank()).standard_normal((8, 4)).astype("float32")

class OwnStep(tf.keras.Sequential):
    def train_step(self, data):
        return super().train_step(data)

def fit(optimizer, callback, kind=tf.keras.Sequential):
    model = kind([tf.keras.layers.Input((4,)), tf.keras.layers.Dense(3)])
    model.compile(optimizer, "mse")
    model.fit(x, x[:, :3], batch_size=4, verbose=0, callbacks=[callback])
    return model

SGD, legacy = tf.keras.optimizers.SGD, tf.keras.optimizers.legacy.SGD
for make in (
    lambda: hvd.callbacks.BroadcastGlobalVariablesCallback(0),
    hvd.callbacks.MetricAverageCallback,
    lambda: hvd.callbacks.LearningRateWarmupCallback(0.1, warmup_epochs=1),
    lambda: hvd.callbacks.LearningRateScheduleCallback(0.1, 0.1),
    hvd.callbacks.BestModelCheckpoint,
):
    for optimizer in (SGD(0.1), legacy(0.1), tf.keras.mixed_precision.LossScaleOptimizer(SGD(0.1))):
        try:
            fit(optimizer, make())
        except ConfigurationError as error:
            assert "not distributed" in str(error) and "hvd.DistributedOptimizer" in str(error), error
        else:
            raise AssertionError((make, optimizer))
callback = hvd.callbacks.BroadcastGlobalVariablesCallback
for kind in (SGD, legacy):
    for wrapped in (hvd.DistributedOptimizer(kind(0.1)), stock.DistributedOptimizer(kind(0.1))):
        kernel = fit(wrapped, callback(0)).trainable_variables[0]
        everyone = hvd.allgather(kernel.numpy()[None]).numpy()
        assert np.array_equal(everyone[0], everyone[1]), wrapped
fit(hvd.DistributedOptimizer(tf.keras.mixed_precision.LossScaleOptimizer(SGD(0.1))), callback(0))
fit(SGD(0.1), callback(0), OwnStep)  # may use a tape
for name in ("broadcast_variables", "SyncBatchNormalization"):
    assert hasattr(hvd, name)
try:
    hvd.broadcast_global_variables(0)
except ConfigurationError as error:
    assert "hvd.broadcast_variables" in str(error)
else:
    raise AssertionError
hvd.SyncBatchNormalization()(x, training=True)
print("done", hvd.rank(), flush=True)
"""


@pytest.mark.multiprocess
@pytest.mark.timeout(330)
def test_callbacks_for_tf_keras_refuse_ranks_that_train_alone(tmp_path: Path):
    pytest.importorskip("tf_keras", reason="tf_keras is not installed")
    script = tmp_path / "train.py"
    script.write_text(UNDISTRIBUTED)
    horovodrun = str(Path(sys.executable).parent / "horovodrun")
    done = subprocess.run(
        launch.command("horovodrun --gloo", 2, [sys.executable, "-u", str(script)], horovodrun),
        env={**launch.environment(), "OMP_NUM_THREADS": "1", "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert done.stdout.count("done") == 2, done.stdout
