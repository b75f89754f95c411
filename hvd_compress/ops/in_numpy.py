"""Work on TensorFlow's tensors done by NumPy, as one operation of a graph.

TensorFlow's own operations each go over memory once more, and one after another leave a processor's cache every time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CorruptPayloadError
from . import aligned
from .array import Array
from .numpy_ops import NumPyOps

if TYPE_CHECKING:
    from .base import Shaped, Work

_NUMPY = NumPyOps()
# Elements, of all arrays, from which going to NumPy and back is worth its time, about 0.1 ms.
WORTH = 2**16


def pays(arrays: Sequence[Array], outputs: Sequence[Shaped]) -> bool:
    """Return whether NumPy is to do work on such arrays: large ones, of its own element types, without an accelerator.

    It depends on shapes and types alone among processes that see the same kinds of devices.
    """
    import tensorflow as tf

    tensors = [x for x in arrays if tf.is_tensor(x)]
    types = [x.dtype.name for x in tensors] + [dtype for _, dtype in outputs]
    size = sum(math.prod(x.shape) for x in tensors) + sum(math.prod(shape) for shape, _ in outputs)
    return size >= WORTH and "bfloat16" not in types and not tf.config.get_visible_devices("GPU")


def done(
    work: Work, arrays: Sequence[Array], outputs: Sequence[Shaped], key: Sequence[Any], donated: int
) -> list[Array]:
    """Do `ArrayOps.at_once` with NumPy."""
    import tensorflow as tf

    places = [i for i, part in enumerate(key) if tf.is_tensor(part)]
    eager = tf.executing_eagerly()

    def at_run_time(*given: Any) -> list[np.ndarray[Any, Any]]:
        own, full = list(given[: len(arrays)]), list(key)
        for place, number in zip(places, given[len(arrays) :], strict=True):
            full[place] = int(number)
        for i, x in enumerate(own):
            # It is the tensor's own memory.
            if i < donated:
                own[i] = aligned.copied(x)
            elif isinstance(x, np.ndarray):
                x.flags.writeable = False
        try:
            with np.errstate(all="ignore"):  # what is not finite is no reason to warn in any other library
                found = work(_NUMPY, own, full)
        except CorruptPayloadError as error:
            if eager:
                raise
            raise ValueError(str(error)) from error  # which a graph reports as an invalid argument, as its assertions
        return [np.asarray(x, dtype) for x, (_, dtype) in zip(found, outputs, strict=True)]

    types = [tf.as_dtype(dtype) for _, dtype in outputs]
    inputs = [*arrays, *(key[i] for i in places)]
    results = tf.numpy_function(at_run_time, inputs, types, stateful=False)
    if tf.is_tensor(results):  # of one output
        results = [results]
    return [tf.ensure_shape(x, tuple(shape)) for x, (shape, _) in zip(results, outputs, strict=True)]
