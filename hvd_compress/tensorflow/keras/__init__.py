"""Everything that `horovod.tensorflow.keras` is, with compression: `import hvd_compress.tensorflow.keras as hvd`.

It follows `tf.keras`: with Keras 3 these are the names of `hvd_compress.keras`; with tf_keras (TF_USE_LEGACY_KERAS=1),
Horovod's own, with compression and with the faults cured that they have beside Keras 3.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from .version import uses_tf_keras

_ours: ModuleType = importlib.import_module(".for_tf_keras" if uses_tf_keras() else "hvd_compress.keras", __name__)

importlib.import_module(f"{__name__}.callbacks")  # an attribute of this package from now on

__all__ = sorted({*dir(_ours), "callbacks"} - {name for name in dir(_ours) if name.startswith("_")})


def __getattr__(name: str) -> Any:
    return getattr(_ours, name)


def __dir__() -> list[str]:
    return list(__all__)
