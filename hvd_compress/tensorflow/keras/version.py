"""Which Keras `tf.keras` is."""

from __future__ import annotations

import tensorflow as tf


def uses_tf_keras() -> bool:
    """Return whether `tf.keras` is tf_keras, the continuation of Keras 2, and not Keras 3."""
    return str(tf.keras.Model.__module__).partition(".")[0] == "tf_keras"
