"""What the checks of Keras optimizers share: small models, batches, and training by `fit`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import horovod.tensorflow as stock
import keras
import numpy as np
import tensorflow as tf

import hvd_compress.keras as hvd

FEATURES, CLASSES, ROWS = 12, 6, 8


def distributed(optimizer: Any, compression: Any = None, **options: Any) -> Any:
    """Return an optimizer made distributed by the package under test; tensors are small: all are compressed."""
    options.setdefault("allow_larger", True)
    return hvd.DistributedOptimizer(optimizer, compression=compression, **options)


def model(dtype: Any = "float32", seed: int = 5) -> keras.Model:
    """Return the same small model wherever the seed is the same."""
    first, last = (keras.initializers.GlorotUniform(seed=seed + i) for i in range(2))
    return keras.Sequential(
        [
            keras.layers.Input((FEATURES,), dtype="float32"),
            keras.layers.Dense(10, activation="tanh", kernel_initializer=first, dtype=dtype, name="first"),
            keras.layers.Dense(CLASSES, kernel_initializer=last, dtype=dtype, name="last"),
        ],
        name="small",
    )


def batch(step: int, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a rank's examples and labels of a step."""
    draw = np.random.default_rng([41, step, rank])
    x, y = draw.standard_normal((ROWS, FEATURES)).astype(np.float32), draw.integers(0, CLASSES, ROWS)
    x[np.arange(ROWS), y] += 2.0
    return x, y


def joined(step: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the batches of all ranks as one."""
    parts = [batch(step, rank) for rank in range(stock.size())]
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


def own(step: int) -> tuple[np.ndarray, np.ndarray]:
    """Return this rank's batch."""
    return batch(step, stock.rank())


def loss() -> keras.losses.Loss:
    """Return the loss that models are trained with."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def compiled(made: keras.Model, optimizer: Any, **options: Any) -> keras.Model:
    """Return the model, compiled with the optimizer."""
    options.setdefault("jit_compile", False)
    made.compile(optimizer, loss(), **options)
    return made


def fit(
    made: keras.Model,
    steps: int,
    first: int = 0,
    batches: Callable[[int], tuple[np.ndarray, np.ndarray]] = own,
    epochs: int = 1,
    **options: Any,
) -> None:
    """Train by `fit` on the batches of so many steps, in order."""
    parts = [batches(step) for step in range(first, first + steps)]
    x, y = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    made.fit(x, y, batch_size=len(parts[0][0]), epochs=epochs, shuffle=False, verbose=0, **options)


def weights(made: keras.Model) -> dict[str, Any]:
    """Return copies of the trainable variables by layer and name: a model that is loaded has other paths."""
    return {
        "/".join(variable.path.split("/")[-2:]): tf.constant(variable.numpy()) for variable in made.trainable_variables
    }


def memory(optimizer: Any) -> dict[str, Any]:
    """Return copies of all that a distributed optimizer and its compressor remember."""
    exchange = getattr(optimizer, "inner_optimizer", optimizer).variable_exchange.exchange
    found = {f"optimizer.{i}": tf.constant(v.numpy()) for i, v in enumerate(optimizer.variables)}
    for name, paths in exchange.state.variables_by_name.items():
        found |= {f"{name}.{path}": tf.constant(v.numpy()) for path, v in paths.items()}
    return found | {"step": tf.constant(exchange.step.numpy())}
