"""The learning rate of this step, from whatever a user has at hand."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ..errors import ConfigurationError


def current_learning_rate(source: Any, step: Any) -> Any:
    """Return the learning rate of this step: a number, tensor or variable; None for None.

    Args:
        source: an optimizer, a learning-rate schedule, a function without arguments, a number, tensor or variable.
        step: what a schedule that comes without its optimizer is asked for.

    Raises:
        ConfigurationError: an optimizer's learning rate is not known.
    """
    inner = getattr(source, "inner_optimizer", None)  # loss-scale optimizers wrap the one that counts steps
    if inner is not None:
        source = inner
    if hasattr(source, "apply_gradients"):
        return _of_optimizer(source)
    if is_schedule(source):
        return source(step)
    if callable(source) and not tf.is_tensor(source) and not isinstance(source, tf.Variable):
        return source()
    return source


def is_schedule(value: Any) -> bool:
    """Return whether a value is a schedule of Keras 3 or tf_keras, neither of which needs to be there."""
    return any(base.__name__ == "LearningRateSchedule" for base in type(value).__mro__)


def _of_optimizer(optimizer: Any) -> Any:
    if hasattr(optimizer, "_decayed_lr"):  # tf_keras.optimizers.legacy: its schedule, and `decay` besides
        return optimizer._decayed_lr(tf.float32)
    for name in ("_learning_rate", "_lr", "learning_rate"):
        rate = getattr(optimizer, name, None)
        if rate is None:
            continue
        # The optimizer's own number is the step before's until it applies gradients.
        return rate(optimizer.iterations) if is_schedule(rate) else rate() if _is_function(rate) else rate
    raise ConfigurationError(
        f"{type(optimizer).__name__} does not tell its learning rate; pass learning_rate=... to the tape, or "
        "follow_step_size=False to the compressor."
    )


def _is_function(rate: Any) -> bool:
    return callable(rate) and not tf.is_tensor(rate) and not isinstance(rate, tf.Variable)
