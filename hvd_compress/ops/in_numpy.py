"""Work on TensorFlow's tensors done by NumPy, as one operation of a graph.

TensorFlow's own operations each go over memory once more, and one after another leave a processor's cache every time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CorruptPayloadError
from . import aligned
from .array import Array
from .numpy_ops import NumPyOps
from .switches import is_on

if TYPE_CHECKING:
    from .base import Shaped, Work

_Numbers = np.ndarray[Any, Any]

_NUMPY = NumPyOps()
# Set to 0, it leaves all work to TensorFlow, which does some of it with many threads.
SWITCH = "HVD_COMPRESS_NUMPY"
# Elements, of all arrays, from which going to NumPy and back is worth its time, about 0.1 ms.
WORTH = 2**16


def pays(arrays: Sequence[Array], outputs: Sequence[Shaped]) -> bool:
    """Return whether NumPy is to do work on such arrays: large ones, of its own element types, where that is allowed.

    It depends on shapes and types alone, but for what ranks compare at start: whether it is allowed.
    """
    import tensorflow as tf

    tensors = [x for x in arrays if tf.is_tensor(x)]
    types = [x.dtype.name for x in tensors] + [dtype for _, dtype in outputs]
    size = sum(math.prod(x.shape) for x in tensors) + sum(math.prod(shape) for shape, _ in outputs)
    return size >= WORTH and "bfloat16" not in types and allowed()


def allowed() -> bool:
    """Return whether NumPy may work for TensorFlow: where no GPU is visible, unless the user says no.

    Raises:
        ConfigurationError: the switch is neither 0 nor 1.
    """
    return is_on(SWITCH, default=True, purpose="for work done by NumPy") and not sees_accelerator()


def sees_accelerator() -> bool:
    """Return whether this process may use a GPU."""
    import tensorflow as tf

    return bool(tf.config.get_visible_devices("GPU"))


def done(
    work: Work, arrays: Sequence[Array], outputs: Sequence[Shaped], key: Sequence[Any], donated: int
) -> list[Array]:
    """Do `ArrayOps.at_once` with NumPy."""
    import tensorflow as tf

    if tf.executing_eagerly():
        own = [aligned.copied(np.asarray(x)) if i < donated else _read(x) for i, x in enumerate(arrays)]
        numbers = [int(part) if tf.is_tensor(part) else part for part in key]
        return [tf.convert_to_tensor(x) for x in _worked(work, own, outputs, numbers)]
    places = [i for i, part in enumerate(key) if tf.is_tensor(part)]
    known = [None if i in places else part for i, part in enumerate(key)]
    shapes = [(tuple(shape), dtype) for shape, dtype in outputs]
    run = _at_run_time(work, len(arrays), places, known, shapes, donated)
    types = [tf.as_dtype(dtype) for _, dtype in shapes]
    results = tf.numpy_function(run, [*arrays, *(key[i] for i in places)], types, stateful=False)
    results = [results] if tf.is_tensor(results) else results
    return [tf.ensure_shape(x, shape) for x, (shape, _) in zip(results, shapes, strict=True)]


def _at_run_time(
    work: Work, count: int, places: Sequence[int], known: Sequence[Any], outputs: Sequence[Shaped], donated: int
) -> Callable[..., list[_Numbers]]:
    """Return what a graph calls, with `count` arrays and what the key has at `places`.

    TensorFlow keeps it for good: it must not hold tensors, which hold their graph and its variables.
    """

    def run(*given: Any) -> list[_Numbers]:
        key = list(known)
        for place, number in zip(places, given[count:], strict=True):
            key[place] = int(number)
        # They are the tensors' own memory.
        arrays = [aligned.copied(x) if i < donated else _closed(x) for i, x in enumerate(given[:count])]
        try:
            return _worked(work, arrays, outputs, key)
        except (CorruptPayloadError, IndexError) as error:
            raise ValueError(str(error)) from error  # which a graph reports as an invalid argument, as its assertions

    return run


def _worked(work: Work, arrays: Sequence[Any], outputs: Sequence[Shaped], key: Sequence[Any]) -> list[_Numbers]:
    with np.errstate(all="ignore"):  # what is not finite is no reason to warn in any other library
        found = work(_NUMPY, arrays, key)
    return [np.asarray(x, dtype) for x, (_, dtype) in zip(found, outputs, strict=True)]


def _read(x: Array) -> Any:
    """Return the numbers of an eager tensor, in its memory; a number as it is."""
    return _closed(np.asarray(x)) if hasattr(x, "numpy") else x


def _closed(x: Any) -> Any:
    """Return an array that cannot be written to; a number as it is."""
    if isinstance(x, np.ndarray):
        x.flags.writeable = False
    return x
