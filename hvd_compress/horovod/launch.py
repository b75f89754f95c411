"""How workers with Horovod are started: command lines and the environment that they need."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .mpi_version import MpiVersion
from .quirks import OPEN_MPI_5_BINDING

WAYS = ("horovodrun --gloo", "horovodrun --mpi", "mpirun")

_SET_BY_LAUNCHERS = (
    "OMPI_COMM_",
    "OMPI_UNIVERSE_",
    "PMIX_",
    "PMI_",
    "HOROVOD_RANK",
    "HOROVOD_SIZE",
    "HOROVOD_LOCAL_",
    "HOROVOD_CROSS_",
    "HOROVOD_GLOO_RENDEZVOUS",
)
_ALLOW_ROOT = ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM")


def command(way: str, workers: int, program: Sequence[str], launcher: str, mpi: MpiVersion | None = None) -> list[str]:
    """Return the command line that starts `workers` processes on this machine.

    Args:
        way: one of `WAYS`.
        workers: how many; they may outnumber the cores.
        program: what each of them runs.
        launcher: the path of horovodrun or mpirun.
        mpi: of the mpirun that will be used, if known.
    """
    if way == "mpirun":
        oversubscribe = ["--oversubscribe"] if mpi is not None and mpi.vendor == "Open MPI" else []
        return [launcher, "-np", str(workers), *oversubscribe, *program]
    controller = way.split()[1]
    binding = []
    if controller == "--mpi" and mpi is not None and mpi.is_open_mpi_5:
        binding = [f"--binding-args={OPEN_MPI_5_BINDING}"]
    return [launcher, controller, "-np", str(workers), "-H", f"localhost:{workers}", *binding, *program]


def environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a process that starts workers, or that is started without a launcher.

    This Python's folder comes first on PATH, Open MPI may run as root if this user is root, and what a
    surrounding launcher has set is left out.

    Args:
        base: the environment to start from; this process's own if None.
    """
    given = os.environ if base is None else base
    result = {key: value for key, value in given.items() if not key.startswith(_SET_BY_LAUNCHERS)}
    result["PATH"] = os.pathsep.join(part for part in (own_folder(), given.get("PATH", "")) if part)
    if os.geteuid() == 0:
        result.update(dict.fromkeys(_ALLOW_ROOT, "1"))
    return result


def root_is_refused() -> bool:
    """Whether Open MPI's mpirun refuses to start because this user is root."""
    return os.geteuid() == 0 and any(os.environ.get(name) != "1" for name in _ALLOW_ROOT)


def own_folder() -> str:
    """Return the folder of this Python's executable, where launchers from PyPI lie, on PATH or not."""
    return str(Path(sys.executable).parent)
