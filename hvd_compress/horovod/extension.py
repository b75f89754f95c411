"""One of Horovod's extensions, loaded into this process. It may abort the process: call this in a child."""

from __future__ import annotations

import ctypes
import importlib
from pathlib import Path
from types import ModuleType

from .build import TRANSPORTS

_LONGEST_VERSION = 8192  # bytes; the largest MPI_MAX_LIBRARY_VERSION_STRING of the MPI libraries that are in use


def load(framework: str) -> ModuleType:
    """Import `horovod.torch` or `horovod.tensorflow`."""
    return importlib.import_module(f"horovod.{framework}")


def transports(module: ModuleType) -> tuple[str, ...]:
    """Return the names out of `TRANSPORTS` that a loaded extension was built with."""
    return tuple(name for name in TRANSPORTS if getattr(module, f"{name}_built")())


def mpi_library() -> str:
    """Return what the MPI library in this process says of itself, "" if there is none; MPI is not initialised."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    file = next((line.split()[-1] for line in lines if "/libmpi.so" in line), None)
    if file is None:
        return ""
    text, length = ctypes.create_string_buffer(_LONGEST_VERSION), ctypes.c_int()
    ctypes.CDLL(file).MPI_Get_library_version(text, ctypes.byref(length))
    return text.value.decode(errors="replace").strip()
