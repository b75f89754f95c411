"""Worlds: the processes that a benchmark runs in, for each array library."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, final

import numpy as np

from ...contract import Array
from ...drivers import LoopbackTransport, Transport
from ...errors import ConfigurationError
from .clock import Clock, CudaClock, HostClock


class World(ABC):
    """One process among those that measure together.

    Attributes:
        rank: of the process.
        size: number of processes.
        clock: of the device that arrays are on.
    """

    rank: int = 0
    size: int = 1
    clock: Clock

    @abstractmethod
    def array(self, x: np.ndarray[Any, Any], dtype: str) -> Array:
        """Return an array of the library, on its device."""

    @abstractmethod
    def transport(self) -> Transport:
        """Return what carries the collectives."""

    def program(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function of arrays as the library runs it best; its results are there by the clock's next mark."""
        return function

    @abstractmethod
    def gather(self, item: Any) -> list[Any]:
        """Return one small picklable object of every rank, by rank."""

    @abstractmethod
    def copier(self, x: Array) -> Callable[[], object]:
        """Return a function that copies an array into memory that is there already."""


@final
class NumPyWorld(World):
    """NumPy over mpi4py where a launcher has started several processes; otherwise one process."""

    def __init__(self) -> None:
        self.clock = HostClock()
        self._comm: Any = None
        # mpi4py starts MPI when it is imported, which a process without a launcher does not need.
        if any(name in os.environ for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK")):
            from mpi4py import MPI

            self._comm = MPI.COMM_WORLD
            self.rank, self.size = self._comm.Get_rank(), self._comm.Get_size()

    def array(self, x: np.ndarray[Any, Any], dtype: str) -> Array:
        if dtype == "bfloat16":
            raise ConfigurationError("dtype='bfloat16': NumPy has none; choose another, or torch or tensorflow.")
        return x.astype(dtype)

    def transport(self) -> Transport:
        from ...drivers.mpi import MPITransport

        return LoopbackTransport() if self.size == 1 else MPITransport(self._comm)

    def gather(self, item: Any) -> list[Any]:
        return [item] if self._comm is None else list(self._comm.allgather(item))

    def copier(self, x: Array) -> Callable[[], object]:
        target = np.empty_like(x)
        return lambda: np.copyto(target, x)


@final
class TorchWorld(World):
    """torch over Horovod, on the CPU or the CUDA device of this process's local rank."""

    def __init__(self, device: str, threads: int) -> None:
        import torch

        import hvd_compress.torch as hvd

        hvd.init()
        self.rank, self.size = hvd.rank(), hvd.size()
        self._torch, self._hvd = torch, hvd
        if device == "cuda":
            if not torch.cuda.is_available():
                raise ConfigurationError("device='cuda': torch finds no CUDA device; choose cpu.")
            torch.cuda.set_device(hvd.local_rank() % torch.cuda.device_count())
        self._device = torch.device(device)
        torch.set_num_threads(threads)
        self.clock = CudaClock() if device == "cuda" else HostClock()

    def array(self, x: np.ndarray[Any, Any], dtype: str) -> Array:
        return self._torch.from_numpy(x).to(self._device, getattr(self._torch, dtype))

    def transport(self) -> Transport:
        from ...torch.transport import HorovodTransport

        return LoopbackTransport() if self.size == 1 else HorovodTransport(self._hvd.global_process_set)

    def gather(self, item: Any) -> list[Any]:
        return [item] if self.size == 1 else list(self._hvd.allgather_object(item))

    def copier(self, x: Array) -> Callable[[], object]:
        target = self._torch.empty_like(x)
        return lambda: target.copy_(x)


@final
class TensorFlowWorld(World):
    """TensorFlow over Horovod; where arrays are, TensorFlow decides: on the first device that is visible."""

    def __init__(self, device: str, threads: int) -> None:
        import tensorflow as tf

        import hvd_compress.tensorflow as hvd

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        hvd.init()
        self.rank, self.size = hvd.rank(), hvd.size()
        self._tf, self._hvd = tf, hvd
        devices = tf.config.list_physical_devices("GPU")
        if device == "cuda" and not devices:
            raise ConfigurationError("device='cuda': TensorFlow finds no CUDA device; choose cpu.")
        tf.config.set_visible_devices([devices[hvd.local_rank() % len(devices)]] if device == "cuda" else [], "GPU")
        self.clock = HostClock()

    def array(self, x: np.ndarray[Any, Any], dtype: str) -> Array:
        return self._tf.cast(self._tf.constant(x), dtype)

    def transport(self) -> Transport:
        raise NotImplementedError("An exchange of TensorFlow's has its collectives in its graph.")

    def program(self, function: Callable[..., Any]) -> Callable[..., Any]:
        graph = self._tf.function(function, autograph=False)

        def run(*arrays: Array) -> Any:
            found = graph(*arrays)
            self._tf.reshape(self._tf.nest.flatten(found)[-1], (-1,))[0].numpy()  # on a device the call returns early
            return found

        return run

    def gather(self, item: Any) -> list[Any]:
        return [item] if self.size == 1 else list(self._hvd.allgather_object(item))

    def copier(self, x: Array) -> Callable[[], object]:
        # The copy is made when a number of it is read.
        return lambda: self._tf.raw_ops.DeepCopy(x=x)[0, 0].numpy()


def make_world(library: str, device: str, threads: int = 1) -> World:
    """Return the world of an array library.

    Args:
        library: one of `LIBRARIES`.
        device: one of `DEVICES`.
        threads: that torch or TensorFlow may use on the CPU.

    Raises:
        ConfigurationError: the library is not installed, or has no such device.
    """
    try:
        if library == "numpy":
            return NumPyWorld()
        return TorchWorld(device, threads) if library == "torch" else TensorFlowWorld(device, threads)
    except ImportError as error:
        raise ConfigurationError(f"--library {library}: {error}") from error
