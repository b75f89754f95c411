"""Train an LSTM that predicts the next word of Python's language reference, with Horovod and a loop of one's own.

Run it with `horovodrun -np 2 python examples/tensorflow_text.py --method powersgd:rank=4`.

The gradient of the embedding is sparse (`tf.IndexedSlices`): its rows are gathered uncompressed, as in Horovod, or made
dense and compressed with `--sparse-as-dense`. A script for plain Horovod differs in two places, marked (1) and (2).
"""

from __future__ import annotations

import argparse
import math

import keras
import numpy as np
import tensorflow as tf
from support import text
from support.measure import StepClock, dense_bytes, gathered_bytes, planned_bytes
from support.methods import compression
from support.progress import Progress

import hvd_compress.tensorflow as hvd  # (1) was: import horovod.tensorflow as hvd


def make_model(words: int, width: int) -> keras.Model:
    layers = keras.layers
    return keras.Sequential([
        layers.Input((None,), dtype="int32"),
        layers.Embedding(words, width), layers.LSTM(width, return_sequences=True), layers.Dense(words),
    ])  # fmt: skip


def batches(words: text.Words, length: int, batch_size: int) -> tf.data.Dataset:
    """Return batches of (words, the words that follow them) from this rank's part of a text."""
    part = np.array_split(words, hvd.size())[hvd.rank()][: len(words) // hvd.size()]
    starts = range(0, len(part) - length, length)
    windows = np.stack([part[start : start + length + 1] for start in starts])
    return tf.data.Dataset.from_tensor_slices((windows[:, :-1], windows[:, 1:])).batch(batch_size, drop_remainder=True)


def loss_of(model: keras.Model, words: tf.Tensor, following: tf.Tensor) -> tf.Tensor:
    logits = model(words, training=True)
    return tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(following, logits, from_logits=True))


def perplexity(model: keras.Model, validation: tf.data.Dataset) -> float:
    """Of the validation text; every rank looks at its part of it."""
    loss = tf.function(loss_of)
    losses = [loss(model, words, following) for words, following in validation]
    return math.exp(float(hvd.allreduce(tf.reduce_mean(losses), name="validation")))


def bytes_per_step(args: argparse.Namespace, variables: list[keras.Variable]) -> int:
    """The bytes that this rank sends for a step, from shapes alone."""
    if args.sparse_as_dense:
        return planned_bytes(args.method, variables, hvd.size(), 1)
    embedding, *others = variables
    rows = gathered_bytes(embedding, args.batch_size * args.length, hvd.size())
    return rows + planned_bytes(args.method, others, hvd.size(), 1)


def train(args: argparse.Namespace) -> None:
    keras.utils.set_random_seed(args.seed)
    corpus = text.load()
    training = batches(corpus.training, args.length, args.batch_size)
    validation = batches(corpus.validation, args.length, args.batch_size)
    model, optimizer = make_model(len(corpus.vocabulary), args.width), keras.optimizers.Adam(args.lr)
    optimizer.build(model.trainable_variables)
    # TensorFlow's variables: plain Horovod does not take Keras's.
    weights = [v.value for v in model.trainable_variables]
    hvd.broadcast_variables([v.value for v in (*model.variables, *optimizer.variables)], root_rank=0)

    @tf.function
    def train_step(words: tf.Tensor, following: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = loss_of(model, words, following)
        tape = hvd.DistributedGradientTape(
            tape,
            compression=args.method,  # (2) was: hvd.Compression.none or hvd.Compression.fp16
            sparse_as_dense=args.sparse_as_dense,
        )
        gradients = tape.gradient(loss, weights)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    epoch = len(training)
    steps, clock = args.steps or args.epochs * epoch, StepClock()
    with Progress(steps, hvd.rank(), hvd.size()) as progress:
        shuffled = training.unbatch().shuffle(epoch * args.batch_size, args.seed).batch(args.batch_size)
        for step, (words, following) in enumerate(shuffled.repeat().take(steps), start=1):
            with clock.step():
                loss = train_step(words, following)
            if progress.due(step):
                progress.report(step, float(loss))
            if step % epoch == 0 or step == steps:
                found = perplexity(model, validation)
                if hvd.rank() == 0:
                    print(f"validation perplexity {found:.1f} after {step} steps", flush=True)
    if hvd.rank() == 0:
        dense = dense_bytes((4 * math.prod(v.shape) for v in model.trainable_variables), hvd.size())
        sent = bytes_per_step(args, model.trainable_variables)
        print(f"{sent:,} bytes a step, {dense:,} without compression and all dense")
        print(f"{clock.typical()['step']:.1f} ms a step", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a language model with compressed gradients.")
    parser.add_argument("--method", type=compression, default="dense", help="dense, fp16, powersgd:rank=2, ...")
    parser.add_argument("--sparse-as-dense", action="store_true", help="compress the embedding's gradient too")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=0, help="this many steps instead of whole epochs")
    parser.add_argument("--batch-size", type=int, default=16, help="pieces of text per worker and step")
    parser.add_argument("--length", type=int, default=32, help="words in a piece")
    parser.add_argument("--width", type=int, default=128, help="numbers in an embedding, units of the LSTM")
    parser.add_argument("--lr", type=float, default=0.002, help="Adam's learning rate")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if getattr(args.method, "has_momentum", False):
        parser.error(f"--method: {args.method!r} has momentum of its own, and so has Adam; choose another one.")
    hvd.init()
    train(args)
    hvd.shutdown()


if __name__ == "__main__":
    main()
