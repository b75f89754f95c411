"""Memory of NumPy's that TensorFlow takes over as it is: it copies what does not begin at a multiple of 64 bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

_BOUNDARY = 64
# From here on a copy costs more than to avoid it.
LARGE_BYTES = 2**16

_Numbers = np.ndarray[Any, Any]


def empty(shape: Sequence[int], dtype: str) -> _Numbers:
    """Return memory of any numbers."""
    return _made(np.empty, shape, dtype)


def zeros(shape: Sequence[int], dtype: str) -> _Numbers:
    """Return zeros."""
    return _made(np.zeros, shape, dtype)


def copied(x: _Numbers) -> _Numbers:
    """Return a copy, row-major."""
    made = empty(x.shape, str(x.dtype))
    made[...] = x
    return made


def _made(make: Callable[..., _Numbers], shape: Sequence[int], dtype: str) -> _Numbers:
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    if nbytes < LARGE_BYTES:
        return make(tuple(shape), dtype)
    room = make(nbytes + _BOUNDARY, np.uint8)
    start = -room.ctypes.data % _BOUNDARY
    return room[start : start + nbytes].view(dtype).reshape(tuple(shape))
