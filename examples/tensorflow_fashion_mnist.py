"""Train a CNN of 207,000 parameters on Fashion-MNIST with Horovod and a training loop of one's own in TensorFlow.

Run it with `horovodrun -np 2 python examples/tensorflow_fashion_mnist.py --method powersgd:rank=4`.

A script for plain Horovod differs in two places, marked (1) and (2). `learning_rate` is for methods that follow it, as
dist-EF does; with others it may be left out.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import keras
import tensorflow as tf
from support import data, script
from support.measure import StepClock, dense_bytes, planned_bytes
from support.progress import Progress
from support.recipes import recipe

import hvd_compress.tensorflow as hvd  # (1) was: import horovod.tensorflow as hvd

EVALUATIONS = 10  # on the test set, while it trains


def make_model() -> keras.Model:
    layers = keras.layers
    return keras.Sequential([
        layers.Input((28, 28, 1)), layers.Rescaling(1 / 255 / 0.353, -0.286 / 0.353),
        layers.Conv2D(16, 3, padding="same", activation="relu"), layers.MaxPool2D(),
        layers.Conv2D(32, 3, padding="same", activation="relu"), layers.MaxPool2D(),
        layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dense(10),
    ])  # fmt: skip


def training_batches(batch_size: int, seed: int) -> tuple[tf.data.Dataset, int]:
    """Return batches of this rank's shard for ever, shuffled anew in each epoch, and how many an epoch has."""
    images, labels = data.load("train")
    length = len(images) // hvd.size()
    shard = tf.data.Dataset.from_tensor_slices((images[..., None], labels)).shard(hvd.size(), hvd.rank()).take(length)
    return shard.shuffle(length, seed).batch(batch_size, drop_remainder=True).repeat(), length // batch_size


def accuracy(model: keras.Model, images: Any, labels: Any) -> float:
    """The share of all test images that the model gets right; every rank looks at its part of them."""
    part = slice(hvd.rank(), None, hvd.size())
    batches = tf.data.Dataset.from_tensor_slices((images[part, ..., None], labels[part])).batch(500)
    right = sum(tf.math.count_nonzero(tf.argmax(model(x), 1) == tf.cast(y, tf.int64)) for x, y in batches)
    return int(hvd.allreduce(right, op=hvd.Sum, name="right")) / len(labels)


def train(args: argparse.Namespace) -> dict[str, Any]:
    keras.utils.set_random_seed(args.seed)
    model = make_model()
    batches, epoch = training_batches(args.batch_size, args.seed)
    steps = args.steps or args.epochs * epoch
    chosen = recipe(args.method, args.lr)
    warmup = max(1, 3 * steps // 10)
    rate = keras.optimizers.schedules.CosineDecay(
        chosen.lr / 25, max(1, steps - warmup), warmup_target=chosen.lr, warmup_steps=warmup
    )
    optimizer = keras.optimizers.SGD(rate, chosen.momentum, chosen.nesterov, chosen.decoupled_weight_decay)
    optimizer.build(model.trainable_variables)
    # TensorFlow's variables: plain Horovod does not take Keras's.
    weights = [v.value for v in model.trainable_variables]
    hvd.broadcast_variables([v.value for v in (*model.variables, *optimizer.variables)], root_rank=0)

    @tf.function
    def train_step(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True))
        tape = hvd.DistributedGradientTape(
            tape,
            compression=args.method,  # (2) was: hvd.Compression.none or hvd.Compression.fp16
            learning_rate=optimizer,  # (2) new
        )
        gradients = tape.gradient(loss, weights)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    test_set, clock, curve = data.load("t10k"), StepClock(), []
    with Progress(steps, hvd.rank(), hvd.size()) as progress:
        for step, (images, labels) in enumerate(batches.take(steps), start=1):
            with clock.step():
                loss = train_step(images, labels)
            if progress.due(step):
                progress.report(step, float(loss))
            if step * EVALUATIONS % steps < EVALUATIONS:
                sent = planned_bytes(args.method, model.trainable_variables, hvd.size(), step)
                curve.append({"step": step, "bytes": sent, "accuracy": accuracy(model, *test_set)})
    return {
        "compression": repr(args.method),
        "workers": hvd.size(),
        "steps": steps,
        "seed": args.seed,
        "accuracy": curve[-1]["accuracy"],
        "bytes_per_step": round(curve[-1]["bytes"] / steps),
        "dense_bytes_per_step": dense_bytes((4 * math.prod(v.shape) for v in model.trainable_variables), hvd.size()),
        "milliseconds": clock.typical(),
        "curve": curve,
    }


def main() -> None:
    args = script.arguments("Train a CNN on Fashion-MNIST with compressed gradients.")
    hvd.init()
    for number, device in enumerate(tf.config.list_physical_devices("GPU")):
        tf.config.experimental.set_memory_growth(device, True)
        if number == hvd.local_rank():
            tf.config.set_visible_devices(device, "GPU")
    result = train(args)
    if hvd.rank() == 0:
        script.finish(result, args.json)
    hvd.shutdown()


if __name__ == "__main__":
    main()
