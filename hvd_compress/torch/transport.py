"""Collectives of torch tensors through Horovod."""

from __future__ import annotations

import pickle
import time
from typing import Any, final

import horovod.torch as stock
import torch

from ..contract import AllGather, AllToAll, Broadcast, Collective, Max, Mean, Sum, Swap
from ..drivers import Transport

# What Horovod cannot move for torch travels as the bits of a type of the same width that it can.
_CARRIED_AS = {torch.bfloat16: torch.int16, torch.bool: torch.uint8}

# Seconds.
_LOOK_AGAIN = 5e-5

_REDUCTIONS = {Mean: stock.Average, Sum: stock.Sum, Max: stock.Max}


@final
class HorovodTransport(Transport):
    """Horovod's asynchronous collectives, by explicit name, within one process set."""

    any_order = True

    def __init__(self, process_set: Any) -> None:
        self._process_set = process_set
        self._size: int = process_set.size()

    def start(self, request: Collective, name: str) -> Any:
        tensor = request.array.contiguous()
        if isinstance(request, (Mean, Sum, Max)):
            reduce = stock.allreduce_async_ if request.donate else stock.allreduce_async
            return (
                reduce(tensor, name=name, op=_REDUCTIONS[type(request)], process_set=self._process_set),
                request,
                tensor.dtype,
            )
        wire = tensor.view(_CARRIED_AS.get(tensor.dtype, tensor.dtype))
        if isinstance(request, AllGather):
            handle = stock.allgather_async(wire, name=name, process_set=self._process_set)
        elif isinstance(request, AllToAll):
            handle = stock.alltoall_async(wire, name=name, process_set=self._process_set)
        elif isinstance(request, Swap):
            splits = [wire.shape[0] if rank == request.partner else 0 for rank in range(self._size)]
            handle = stock.alltoall_async(wire, splits, name=name, process_set=self._process_set)
        else:
            handle = stock.broadcast_async(wire, self._global_rank(request), name=name, process_set=self._process_set)
        return handle, request, tensor.dtype

    def finish(self, handle: Any) -> torch.Tensor:
        number, request, dtype = handle
        # Horovod's own waiting looks once a millisecond, which is longer than many a small collective takes.
        while not stock.poll(number):
            time.sleep(_LOOK_AGAIN)
        result = stock.synchronize(number)
        if isinstance(result, tuple):  # alltoall returns the splits received besides
            result = result[0]
        if isinstance(request, AllGather):
            result = result.reshape(self._size, -1)
        restored: torch.Tensor = result.view(dtype)
        return restored

    def arrived(self, handle: Any) -> bool:
        return bool(stock.poll(handle[0]))

    def gather_objects(self, item: Any, name: str) -> list[Any]:
        """Return one small picklable object of every rank, by rank; waits for all of them."""
        data = torch.frombuffer(bytearray(pickle.dumps(item)), dtype=torch.uint8)
        length = torch.tensor([data.numel()], dtype=torch.int64)
        lengths = stock.allgather(length, name=f"{name}.length", process_set=self._process_set).tolist()
        joined = stock.allgather(data, name=f"{name}.data", process_set=self._process_set)
        return [pickle.loads(piece.numpy().tobytes()) for piece in torch.split(joined, lengths)]

    def _global_rank(self, request: Broadcast) -> int:
        """Return the rank that Horovod means: of all processes, not of the process set."""
        ranks = self._process_set.ranks
        return int(ranks[request.root]) if ranks else request.root
