"""Collectives between the steps of a training: objects of all ranks, and variables of one rank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import horovod.tensorflow as stock
import numpy as np
import tensorflow as tf

from ...tensorflow.transport import HorovodTransport

# Variables travel together in buffers of about so many bytes.
BUFFER_BYTES = 64 * 2**20


def gather_objects(item: Any, name: str, process_set: Any) -> list[Any]:
    """Return one small picklable object of every rank, by rank; waits for all of them.

    Args:
        item: this rank's.
        name: equal on all ranks, and of no collective that is under way.
        process_set: Horovod's; this rank is in it.
    """
    if process_set.size() == 1:
        return [item]
    return HorovodTransport(process_set).gather_objects(item, name)


def broadcast_variables(variables: Sequence[Any], root_rank: int, name: str, process_set: Any) -> None:
    """Give variables the values that they have on one rank, bit by bit.

    Args:
        variables: Keras or TensorFlow variables; on all ranks as many, of the same shapes and element types.
        root_rank: among all processes; in the process set.
        name: equal on all ranks, and of no collective that is under way.
        process_set: Horovod's; this rank is in it.
    """
    if process_set.size() == 1:
        return
    for number, part in enumerate(_buffers(variables)):
        arrays = [array_of(variable) for variable in part]
        # Bytes: Horovod does not know every element type that a variable can have.
        data = np.concatenate([array.reshape(-1).view(np.uint8) for array in arrays])
        data = _broadcast(data, root_rank, f"{name}.{number}", process_set)
        ends = np.cumsum([array.nbytes for array in arrays])
        for variable, array, piece in zip(part, arrays, np.split(data, ends[:-1]), strict=True):
            variable.assign(np.ascontiguousarray(piece).view(array.dtype).reshape(array.shape))


def array_of(variable: Any) -> np.ndarray:
    """Return the value of a Keras or TensorFlow variable, contiguous, in its own element type."""
    value = variable if isinstance(variable, tf.Variable) else variable.value
    return np.ascontiguousarray(value.numpy()).reshape(value.shape)


def _buffers(variables: Sequence[Any]) -> Iterator[list[Any]]:
    """Yield consecutive variables that have something to send, in parts of about `BUFFER_BYTES`."""
    part: list[Any] = []
    size = 0
    for variable in variables:
        nbytes = array_of(variable).nbytes
        if not nbytes:
            continue
        if part and size + nbytes > BUFFER_BYTES:
            yield part
            part, size = [], 0
        part.append(variable)
        size += nbytes
    if part:
        yield part


def _broadcast(data: np.ndarray, root_rank: int, name: str, process_set: Any) -> np.ndarray:
    # Only in a graph do Horovod's operations have names of their own.
    @tf.function(autograph=False)
    def send(data: tf.Tensor) -> tf.Tensor:
        return stock.broadcast(data, root_rank, name=name, ignore_name_scope=True, process_set=process_set)

    given = tf.constant(data)
    return np.asarray(send.get_concrete_function(given)(given).numpy())
