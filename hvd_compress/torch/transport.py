"""Collectives of torch tensors through Horovod."""

from __future__ import annotations

import pickle
from typing import Any, final

import horovod.torch as stock
import torch

from ..contract import AllGather, AllToAll, Broadcast, Collective, Max, Mean, Sum, Swap
from ..drivers import Transport
from .waiting import wait_for

# What Horovod cannot move for torch travels as the bits of a type of the same width that it can.
_CARRIED_AS = {torch.bfloat16: torch.int16, torch.bool: torch.uint8}

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
        result = wait_for(number)
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
        lengths = self._gathered(length, f"{name}.length").tolist()
        joined = self._gathered(data, f"{name}.data")
        return [pickle.loads(piece.numpy().tobytes()) for piece in torch.split(joined, lengths)]

    def _gathered(self, tensor: torch.Tensor, name: str) -> torch.Tensor:
        gathered: torch.Tensor = wait_for(stock.allgather_async(tensor, name=name, process_set=self._process_set))
        return gathered

    def _global_rank(self, request: Broadcast) -> int:
        """Return the rank that Horovod means: of all processes, not of the process set."""
        ranks = self._process_set.ranks
        return int(ranks[request.root]) if ranks else request.root
