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
# Whether `load_model` is loading, which insists on the state; `load_weights` may be of a file that is for all ranks.
_required: ContextVar[bool] = ContextVar("hvd_compress_required", default=False)


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
        attachment: the optimizer's; its `factor` is saved.
    """

    def __init__(self, exchange: VariableExchange, attachment: Any) -> None:
        self._exchange = exchange
        self._attachment = attachment
        self.found = self.ignores_state = False
        self.factor: float | None = None

    def set_factor(self, factor: float) -> None:
        """Multiply gradients by another factor before the exchange."""
        self._attachment.factor = factor

    def _obj_type(self) -> str:
        return "Optimizer"

    def save_own_variables(self, store: Any) -> None:
        """Put the state into a store of Keras: numbered arrays, and what they are."""
        factor = {"factor": self._attachment.factor}
        saved = None if _left_out.get() else self._exchange.saved_state()
        if saved is None:
            store[_ABOUT] = _bytes(factor)
            return
        arrays = [(name, path, array) for name, paths in saved.leaves.items() for path, array in paths.items()]
        about = factor | {
            "origin": saved.origin,
            "step": saved.step,
            "names": saved.names,
            "arrays": [[name, path] for name, path, _ in arrays],
        }
        store[_ABOUT] = _bytes(about)
        for number, (_, _, array) in enumerate(arrays):
            store[str(number)] = array

    def load_own_variables(self, store: Any) -> None:
        """Take the state out of a store of Keras, if it holds one; it waits for the first step.

        After the first step the present state stays: nothing tells whether the other ranks load too, and which file,
        and a rank that alone went back would be at another step than they are.
        """
        self.found = False
        if _ABOUT not in store.keys():  # noqa: SIM118 (a store has no __iter__)
            return
        about = json.loads(np.asarray(store[_ABOUT]).tobytes())
        self.factor, self.found = about["factor"], "origin" in about
        if not self.found or self.ignores_state:
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
        leaves: dict[str, dict[str, np.ndarray[Any, Any]]] = {}
        for number, (name, path) in enumerate(about["arrays"]):
            leaves.setdefault(name, {})[path] = np.array(store[str(number)])
        saved = SavedState(about["origin"], about["step"], tuple(about["names"]), leaves)
        self._exchange.restore(saved, required=_required.get())


def _bytes(about: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    return np.frombuffer(json.dumps(about).encode(), np.uint8)


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
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    saved = _load_compression(model, optimizer, str(filepath), compression_state)
    if not {"backward_passes_per_step", "average_aggregated_gradients"} & options.keys():
        _restore_accumulation(optimizer, saved, str(filepath))
    return model


def _load_compression(model: Any, optimizer: Any, filepath: str, with_state: bool) -> SavedCompression:
    """Load what a file holds of compression; state only where it is wanted."""
    saved: SavedCompression = optimizer.hvd_compress
    saved.ignores_state = not with_state
    if os.path.isdir(filepath):
        filepath = os.path.join(filepath, "model.weights.h5")
    if filepath.endswith((".keras", ".weights.h5")):
        token = _required.set(True)
        try:
            # Loads weights and optimizer once more, and this time what hangs on the optimizer too.
            model.load_weights(filepath)
        finally:
            _required.reset(token)
    compressor = optimizer.variable_exchange.compressor
    if with_state and not saved.found and not isinstance(compressor, (Identity, HorovodCompressor)):
        warnings.warn(
            f"{filepath!r} holds no compression state; what {compressor!r} remembers starts at zero. Pass "
            "compression_state=False to say that this is meant.",
            UserWarning,
            stacklevel=3,
        )
    saved.ignores_state = False
    return saved


def _restore_accumulation(optimizer: Any, saved: SavedCompression, filepath: str) -> None:
    """Add gradients up, or average them, over local steps as the saved optimizer did.

    Raises:
        ConfigurationError: the file does not tell.
    """
    if saved.factor is not None:
        saved.set_factor(saved.factor)
    elif optimizer.gradient_accumulation_steps and not filepath.endswith(".keras"):
        steps = optimizer.gradient_accumulation_steps
        raise ConfigurationError(
            f"The optimizer in {filepath!r} accumulates gradients over {steps} steps, and this kind of file does not "
            f"tell whether it adds them up or averages them; pass backward_passes_per_step={steps}, for means with "
            "average_aggregated_gradients=True."
        )
