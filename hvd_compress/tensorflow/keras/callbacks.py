"""Callbacks for the Keras that `tf.keras` is: of `hvd_compress.keras.callbacks` for Keras 3, Horovod's for tf_keras."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from .version import uses_tf_keras

_ours: ModuleType = importlib.import_module(
    ".callbacks_for_tf_keras" if uses_tf_keras() else "hvd_compress.keras.callbacks", __package__
)

__all__ = list(_ours.__all__)


def __getattr__(name: str) -> Any:
    return getattr(_ours, name)


def __dir__() -> list[str]:
    return list(__all__)
