"""The names of `horovod.tensorflow.keras` for tf_keras, with compression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import horovod.tensorflow.keras as stock
import tensorflow as tf
from horovod import _keras as stock_implementation

from ..distributed_optimizer import DistributedOptimizer
from . import callbacks_for_tf_keras as callbacks
from . import elastic

__all__ = ["DistributedOptimizer", "callbacks", "elastic", "load_model"]


def load_model(
    filepath: Any,
    custom_optimizers: Sequence[type] | None = None,
    custom_objects: Mapping[str, Any] | None = None,
    compression: Any = None,
    legacy_opts: bool = False,
) -> Any:
    """Load a model of tf_keras and make its optimizer distributed.

    Args:
        filepath: of the model.
        custom_optimizers: optimizer classes to know when loading.
        custom_objects: other classes and functions to know, by name.
        compression: as for `hvd.DistributedOptimizer`.
        legacy_opts: the model uses `tf.keras.optimizers.legacy`.

    Raises:
        ConfigurationError: an argument cannot be honoured.
    """

    def wrapped(kind: type) -> Any:
        return lambda **config: DistributedOptimizer(kind(**config), compression=compression)

    return stock_implementation.load_model(tf.keras, wrapped, filepath, custom_optimizers, custom_objects, legacy_opts)


def __getattr__(name: str) -> Any:
    try:
        return getattr(stock, name)
    except AttributeError:
        raise AttributeError(
            f"Neither hvd_compress.tensorflow.keras nor horovod.tensorflow.keras has {name!r}."
        ) from None


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in dir(stock) if not name.startswith("_"))})
