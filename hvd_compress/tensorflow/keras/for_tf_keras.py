"""The names of `horovod.tensorflow.keras` for tf_keras, with compression."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import horovod.tensorflow.keras as stock
import tf_keras
from horovod.tensorflow import SyncBatchNormalization

from ...codecs import Identity
from ...errors import ConfigurationError
from ...operators import HorovodCompressor
from ..broadcast import broadcast_global_variables as _global_variables_operation
from ..broadcast import broadcast_variables
from ..distributed_optimizer import DistributedOptimizer
from ..fitting import nested_optimizers
from . import callbacks_for_tf_keras as callbacks
from . import elastic

__all__ = [
    "DistributedOptimizer",
    "SyncBatchNormalization",
    "broadcast_global_variables",
    "broadcast_variables",
    "callbacks",
    "elastic",
    "load_model",
]


def load_model(
    filepath: Any,
    custom_optimizers: Sequence[type] | None = None,
    custom_objects: Mapping[str, Any] | None = None,
    compression: Any = None,
    legacy_opts: bool = False,
    *,
    compression_state: bool = True,
    **options: Any,
) -> Any:
    """Load a model that `model.save` of tf_keras wrote, and make its optimizer distributed.

    No compression state comes back from what tf_keras saves: residuals and steps start at zero. Momenta come back where
    tf_keras brings them: from `.h5` but for loss scaling, from `.keras` but for legacy optimizers; from no SavedModel.
    To go on from all of it, every rank saves and restores a `tf.train.Checkpoint` of its own, of model and optimizer.

    Args:
        filepath: a `.keras` or `.h5` file, or the folder of a SavedModel; all ranks may give the same.
        custom_optimizers: optimizer classes to know when loading.
        custom_objects: other classes and functions to know, by name.
        compression: as for `hvd.DistributedOptimizer`.
        legacy_opts: taken for Horovod's sake; the file tells which kind of optimizer it holds.
        compression_state: false says that empty residuals are meant; otherwise a compressor that has any warns.
        options: further arguments of `hvd.DistributedOptimizer`.

    Raises:
        ConfigurationError: the file has no optimizer, or an argument cannot be honoured.
    """
    del legacy_opts
    known = {kind.__name__: kind for kind in custom_optimizers or ()} | dict(custom_objects or {})
    model = tf_keras.models.load_model(filepath, custom_objects=known)
    if getattr(model, "optimizer", None) is None:
        raise ConfigurationError(
            f"The model in {str(filepath)!r} was saved without an optimizer; load it by tf.keras.models.load_model() "
            "and compile it with hvd.DistributedOptimizer(...)."
        )
    DistributedOptimizer(model.optimizer, compression=compression, **options)
    compressor = nested_optimizers(model.optimizer)[-1].exchange.compressor
    if compression_state and not isinstance(compressor, (Identity, HorovodCompressor)):
        warnings.warn(
            f"{str(filepath)!r} brings no compression state, as no model file of tf_keras does; what {compressor!r} "
            "remembers starts at zero. Pass compression_state=False to say that this is meant.",
            UserWarning,
            stacklevel=2,
        )
    return model


def broadcast_global_variables(root_rank: int) -> None:
    """Give all global variables of the TensorFlow 1 session of tf_keras the values of one rank.

    Args:
        root_rank: whose values all ranks get.

    Raises:
        ConfigurationError: TensorFlow 2 runs eagerly or in a `tf.function`, where there are none.
    """
    operation = _global_variables_operation(root_rank)
    tf_keras.backend.get_session().run(operation)


def __getattr__(name: str) -> Any:
    try:
        return getattr(stock, name)
    except AttributeError:
        raise AttributeError(
            f"Neither hvd_compress.tensorflow.keras nor horovod.tensorflow.keras has {name!r}."
        ) from None


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in dir(stock) if not name.startswith("_"))})
