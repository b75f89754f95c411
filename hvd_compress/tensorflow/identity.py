"""Which variable it is: a Keras variable and the variable of TensorFlow inside it are the same one."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ..errors import ConfigurationError


def variable_of(variable: Any) -> Any:
    """Return the variable of TensorFlow that a Keras variable holds; any other variable as it is.

    Raises:
        ConfigurationError: it is no variable.
    """
    if not hasattr(variable, "assign"):
        raise ConfigurationError(f"{variable!r} is no variable; give variables of the model, such as layer.kernel.")
    held = getattr(variable, "_value", None)
    return held if isinstance(held, tf.Variable) else variable


def identity(variable: Any) -> int:
    """Return a number that is equal for the same variable, however it is given, for as long as it lives."""
    return id(variable_of(variable))
