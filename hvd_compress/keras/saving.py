"""Compression state in the files of `model.save`, and `load_model`, which goes on from it."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, final

import keras
import numpy as np

from ..codecs import Identity
from ..errors import ConfigurationError
from ..operators import HorovodCompressor
from ..tensorflow.saved_state import SavedState
from ..tensorflow.variable_exchange import VariableExchange

try:
    from keras.src.saving.keras_saveable import KerasSaveable
except ImportError as error:
    raise ImportError(
        f"Keras {keras.__version__} has no keras.src.saving.keras_saveable, which puts compression state into files; "
        "hvd_compress.keras needs Keras 3.15."
    ) from error

_ABOUT = "about"
_left_out: ContextVar[bool] = ContextVar("hvd_compress_left_out", default=False)


@contextmanager
def compression_state_left_out() -> Iterator[None]:
    """Leave compression state out of what is saved within the block: the file is for all ranks."""
    token = _left_out.set(True)
    try:
        yield
    finally:
        _left_out.reset(token)


@final
class SavedCompression(KerasSaveable):
    """A child of an optimizer, so that Keras saves and loads the compression state with the optimizer's.

    Without us a file loads as if the child were not there.

    Args:
        exchange: the optimizer's.
    """

    def __init__(self, exchange: VariableExchange) -> None:
        self._exchange = exchange
        self.found = False

    def _obj_type(self) -> str:
        return "Optimizer"

    def save_own_variables(self, store: Any) -> None:
        """Put the state into a store of Keras: numbered arrays, and what they are."""
        saved = None if _left_out.get() else self._exchange.saved_state()
        if saved is None:
            return
        arrays = [(name, path, array) for name, paths in saved.leaves.items() for path, array in paths.items()]
        about = {
            "origin": saved.origin,
            "step": saved.step,
            "names": saved.names,
            "arrays": [[name, path] for name, path, _ in arrays],
        }
        store[_ABOUT] = np.frombuffer(json.dumps(about).encode(), np.uint8)
        for number, (_, _, array) in enumerate(arrays):
            store[str(number)] = array

    def load_own_variables(self, store: Any) -> None:
        """Take the state out of a store of Keras, if it holds one; it waits for the first step.

        After the first step the present state stays: nothing tells whether the other ranks load too, and which file,
        and a rank that alone went back would be at another step than they are.
        """
        self.found = _ABOUT in store.keys()  # noqa: SIM118 (a store has no __iter__)
        if not self.found:
            return
        live = self._exchange.exchange
        if live is not None:
            if live.state.variables_by_name:
                warnings.warn(
                    "The compression state in this file is left out, since training has begun: residuals and step "
                    "count stay as they are. To go back to it, every rank loads the file that it saved itself by "
                    "hvd.load_model(...); hvd.load_model(..., compression_state=False) starts with empty residuals.",
                    UserWarning,
                    stacklevel=2,
                )
            return
        about = json.loads(np.asarray(store[_ABOUT]).tobytes())
        leaves: dict[str, dict[str, np.ndarray[Any, Any]]] = {}
        for number, (name, path) in enumerate(about["arrays"]):
            leaves.setdefault(name, {})[path] = np.array(store[str(number)])
        self._exchange.restore(SavedState(about["origin"], about["step"], tuple(about["names"]), leaves))


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
    """Load a model that `model.save` wrote, make its optimizer distributed, and go on as if it had not been saved.

    Args:
        filepath: a `.keras` file, or a folder of `model.save(..., zipped=False)`; each rank gives the one that it saved
            itself, since residuals are its own.
        custom_optimizers: optimizer classes to know when loading.
        custom_objects: other classes and functions to know, by name.
        compression: as for `hvd.DistributedOptimizer`; the same as before, to go on from its state.
        legacy_opts: must be false: Keras 3 has no legacy optimizers.
        compression_state: load what the compressor remembers; without it, residuals and steps start at zero, and all
            ranks may give the same file.
        options: further arguments of `hvd.DistributedOptimizer`.

    Raises:
        ConfigurationError: the file has no optimizer, or an argument cannot be honoured. If compression state does not
            fit this job, all ranks raise at the first step.
    """
    from .distributed_optimizer import DistributedOptimizer

    if legacy_opts:
        raise ConfigurationError(
            "legacy_opts=True: Keras 3 has no legacy optimizers; set TF_USE_LEGACY_KERAS=1 and use "
            "hvd_compress.tensorflow for models of tf_keras."
        )
    known = {kind.__name__: kind for kind in custom_optimizers or ()} | dict(custom_objects or {})
    model = keras.models.load_model(filepath, custom_objects=known)
    if getattr(model, "optimizer", None) is None:
        raise ConfigurationError(
            f"The model in {str(filepath)!r} was saved without an optimizer; load it by keras.models.load_model() and "
            "compile it with hvd.DistributedOptimizer(...)."
        )
    DistributedOptimizer(model.optimizer, compression=compression, **options)
    if compression_state:
        _load_compression(model, str(filepath))
    return model


def _load_compression(model: Any, filepath: str) -> None:
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    if os.path.isdir(filepath):
        filepath = os.path.join(filepath, "model.weights.h5")
    if filepath.endswith((".keras", ".weights.h5")):
        # Loads weights and optimizer once more, and this time what hangs on the optimizer too.
        model.load_weights(filepath)
    compressor = optimizer.variable_exchange.compressor
    if not optimizer.hvd_compress.found and not isinstance(compressor, (Identity, HorovodCompressor)):
        warnings.warn(
            f"{filepath!r} holds no compression state; what {compressor!r} remembers starts at zero. Pass "
            "compression_state=False to say that this is meant.",
            UserWarning,
            stacklevel=3,
        )
