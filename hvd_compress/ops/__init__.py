"""Array operations: the one place that knows the array libraries.

Algorithms are written over `ArrayOps`; NumPy is the reference, torch and TensorFlow follow it on any device. A library
is touched only if the caller's arrays come from it, and so only once the caller has imported it. Another library is one
more file here and one more row in `_LIBRARIES`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from ..errors import ConfigurationError
from .array import Array, Cut
from .base import ArrayOps
from .codes import Coding
from .numpy_ops import NumPyOps
from .random import random_generator
from .tensorflow_ops import TensorFlowOps
from .torch_ops import TorchOps

__all__ = ["Array", "ArrayOps", "Coding", "Cut", "NumPyOps", "TensorFlowOps", "TorchOps", "ops_of", "random_generator"]

_NUMPY = NumPyOps()
_torch_ops_on = lru_cache(maxsize=None)(TorchOps)
_tensorflow_ops_once = lru_cache(maxsize=1)(TensorFlowOps)


def _numpy_ops(x: Array) -> ArrayOps | None:
    return _NUMPY if isinstance(x, (np.ndarray, np.generic)) else None


def _torch_ops(x: Array) -> ArrayOps | None:
    torch = sys.modules.get("torch")
    return _torch_ops_on(x.device) if torch is not None and isinstance(x, torch.Tensor) else None


def _tensorflow_ops(x: Array) -> ArrayOps | None:
    tensorflow = sys.modules.get("tensorflow")
    return _tensorflow_ops_once() if tensorflow is not None and tensorflow.is_tensor(x) else None


_LIBRARIES: tuple[Callable[[Array], ArrayOps | None], ...] = (_numpy_ops, _torch_ops, _tensorflow_ops)


def ops_of(x: Array) -> ArrayOps:
    """Return the operations for the library and device that hold `x`.

    Raises:
        ConfigurationError: x is not an array of a supported library.
    """
    for library in _LIBRARIES:
        ops = library(x)
        if ops is not None:
            return ops
    raise ConfigurationError(
        f"{type(x).__name__} is not a supported array; use a NumPy array, or a tensor of torch or TensorFlow."
    )
