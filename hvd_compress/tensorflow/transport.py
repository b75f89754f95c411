"""Collectives of TensorFlow tensors through Horovod, in a graph."""

from __future__ import annotations

import pickle
import re
from typing import Any, final

import horovod.tensorflow as stock
import numpy as np
import tensorflow as tf

from ..contract import AllGather, AllToAll, Broadcast, Collective, Max, Mean, Sum, Swap
from ..drivers import Transport
from .graph_optimizer import sealed

# What Horovod cannot move for TensorFlow travels as the bits of a type of the same width that it can.
_CARRIED_AS = {tf.bfloat16: tf.int16}

_REDUCTIONS = {Mean: stock.Average, Sum: stock.Sum, Max: stock.Max}


@final
class HorovodTransport(Transport):
    """Horovod's collectives as operations of the graph that is being built, within one process set.

    No order in which a graph is executed can deadlock. Every rank's graph holds the same collectives under the same
    names, each of which runs (`sealed`, `keep`). A collective runs once what it is given is there, and holds up no
    thread while it waits for other ranks, which match it by name, whatever came before. Of all that are waited for,
    take one that needs the results of none of the others: every rank has asked for it, or is about to, so it ends. A
    name is used again by the next step only, which starts after this one's collectives: it reads a clock and a step
    count, in the order of the graph's side effects.

    Args:
        process_set: Horovod's.
        device: where collectives run; "" leaves it to TensorFlow.
    """

    def __init__(self, process_set: Any, device: str = "") -> None:
        self._process_set = process_set
        self._device = device
        self._size: int = process_set.size()
        self.results: list[tf.Tensor] = []

    def start(self, request: Collective, name: str) -> Any:
        with tf.device(self._device):
            return self._started(request, name)

    def _started(self, request: Collective, name: str) -> tf.Tensor:
        tensor, shape = request.array, request.array.shape
        # Names inside an outer graph must not depend on where the graph was called from.
        options = {"name": _node_name(name), "process_set": self._process_set, "ignore_name_scope": True}
        if isinstance(request, (Mean, Sum, Max)):
            result = stock.allreduce(sealed(tensor), op=_REDUCTIONS[type(request)], **options)
            return self._kept(tf.ensure_shape(result, shape))
        carried = _CARRIED_AS.get(tensor.dtype, tensor.dtype)
        wire = sealed(tensor if carried is tensor.dtype else tf.bitcast(tensor, carried))
        if isinstance(request, AllGather):
            result, shape = stock.allgather(wire, **options), (self._size, *shape)
        elif isinstance(request, AllToAll):
            result = stock.alltoall(wire, **options)
        elif isinstance(request, Swap):
            splits = [int(shape[0]) if rank == request.partner else 0 for rank in range(self._size)]
            result, _ = stock.alltoall(wire, splits=tf.constant(splits, tf.int32), **options)
        else:
            result = stock.broadcast(wire, self._global_rank(request), **options)
        result = tf.reshape(result, shape)
        return self._kept(result if carried is tensor.dtype else tf.bitcast(result, tensor.dtype))

    def finish(self, handle: Any) -> tf.Tensor:
        return handle

    def gather_objects(self, item: Any, name: str) -> list[Any]:
        """Return one small picklable object of every rank, by rank; waits for all of them."""
        data = np.frombuffer(pickle.dumps(item), np.uint8)

        @tf.function(autograph=False)
        def gather(length: tf.Tensor, data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            options = {"process_set": self._process_set, "ignore_name_scope": True}
            lengths = stock.allgather(length, name=_node_name(f"{name}.length"), **options)
            return lengths, stock.allgather(data, name=_node_name(f"{name}.data"), **options)

        with tf.init_scope():
            given = tf.constant([len(data)], tf.int64), tf.constant(data)
            lengths, joined = gather.get_concrete_function(*given)(*given)
        ends = np.cumsum(lengths.numpy())[:-1]
        return [pickle.loads(piece.tobytes()) for piece in np.split(joined.numpy(), ends)]

    def _kept(self, result: tf.Tensor) -> tf.Tensor:
        self.results.append(result)
        return result

    def _global_rank(self, request: Broadcast) -> int:
        """Return the rank that Horovod means: of all processes, not of the process set."""
        ranks = self._process_set.ranks
        return int(ranks[request.root]) if ranks else request.root


def _node_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.]", "_", name)
