"""Train a CNN of 207,000 parameters on Fashion-MNIST with Horovod and Keras's `fit`.

Run it with `horovodrun -np 2 python examples/keras_fashion_mnist.py --method powersgd:rank=4`.

A script for plain Horovod differs in two places, marked (1) and (2).
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import keras
import tensorflow as tf
from support import data, script
from support.keras_reports import Reports
from support.measure import dense_bytes, planned_bytes
from support.recipes import recipe

import hvd_compress.keras as hvd  # (1) was: import horovod.keras as hvd


def make_model() -> keras.Model:
    layers = keras.layers
    return keras.Sequential([
        layers.Input((28, 28, 1)), layers.Rescaling(1 / 255 / 0.353, -0.286 / 0.353),
        layers.Conv2D(16, 3, padding="same", activation="relu"), layers.MaxPool2D(),
        layers.Conv2D(32, 3, padding="same", activation="relu"), layers.MaxPool2D(),
        layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dense(10),
    ])  # fmt: skip


def shard(part: str) -> tuple[tf.data.Dataset, int]:
    """Return this rank's images of a part, all ranks having as many, and how many they are."""
    images, labels = data.load(part)
    length = len(images) // hvd.size()
    images, labels = (array[hvd.rank() :: hvd.size()][:length] for array in (images[..., None], labels))
    return tf.data.Dataset.from_tensor_slices((images, labels)), length


def train(args: argparse.Namespace) -> dict[str, Any]:
    keras.utils.set_random_seed(args.seed)
    chosen = recipe(args.method, args.lr)
    optimizer: Any = keras.optimizers.SGD(
        chosen.lr, chosen.momentum, chosen.nesterov, weight_decay=chosen.decoupled_weight_decay
    )
    optimizer = hvd.DistributedOptimizer(
        optimizer,
        compression=args.method,  # (2) was: hvd.Compression.none or hvd.Compression.fp16
    )
    model = make_model()
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,  # XLA cannot compile collectives
    )

    training_set, length = shard("train")
    steps_per_epoch, epochs = length // args.batch_size, args.epochs
    if args.steps:
        steps_per_epoch, epochs = args.steps, 1
    reports = Reports(steps_per_epoch * epochs, hvd.rank(), hvd.size())
    model.fit(
        training_set.shuffle(length, args.seed).batch(args.batch_size, drop_remainder=True).repeat(),
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        validation_data=shard("t10k")[0].batch(500),
        verbose=0,
        callbacks=[
            hvd.callbacks.BroadcastGlobalVariablesCallback(0),
            hvd.callbacks.MetricAverageCallback(),
            # Up in the first epoch, then down along a cosine.
            hvd.callbacks.LearningRateWarmupCallback(chosen.lr, warmup_epochs=1),
            hvd.callbacks.LearningRateScheduleCallback(
                chosen.lr,
                multiplier=lambda epoch: (1 + math.cos(math.pi * (epoch - 1) / (epochs - 1))) / 2,
                start_epoch=1,
                staircase=False,
            ),
            reports,
        ],
    )
    sent = [planned_bytes(args.method, model.trainable_variables, hvd.size(), step) for step, _ in reports.accuracies]
    return {
        "compression": repr(args.method),
        "workers": hvd.size(),
        "steps": steps_per_epoch * epochs,
        "seed": args.seed,
        "accuracy": reports.accuracies[-1][1],
        "bytes_per_step": round(sent[-1] / reports.steps),
        "dense_bytes_per_step": dense_bytes((4 * math.prod(v.shape) for v in model.trainable_variables), hvd.size()),
        "milliseconds": reports.clock.typical(),
        "curve": [
            {"step": step, "bytes": nbytes, "accuracy": accuracy}
            for (step, accuracy), nbytes in zip(reports.accuracies, sent, strict=True)
        ],
    }


def main() -> None:
    args = script.arguments("Train a CNN on Fashion-MNIST with compressed gradients and Keras.")
    hvd.init()
    result = train(args)
    if hvd.rank() == 0:
        script.finish(result, args.json)
    hvd.shutdown()


if __name__ == "__main__":
    main()
