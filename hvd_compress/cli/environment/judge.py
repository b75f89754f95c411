"""Facts in, rows with cures out: pure functions, so that every rule is tested with made-up facts."""

from __future__ import annotations

from .facts import Facts
from .judge_horovod import horovod_rows
from .judge_launch import launch_rows
from .judge_mpi import mpi_rows
from .judge_python import python_rows
from .row import Row

_OLDEST_PYTHON = (3, 10)


def rows(facts: Facts) -> list[Row]:
    """Return the whole table; its last row is the verdict."""
    return [
        *python_rows(facts),
        *mpi_rows(facts),
        *horovod_rows(facts),
        *launch_rows(facts),
        _verdict(facts),
    ]


def usable(rows: list[Row]) -> bool:
    """Whether training could run, as the verdict says."""
    return rows[-1].state == "ok"


def _verdict(facts: Facts) -> Row:
    obstacle = _obstacle(facts)
    if obstacle:
        return Row("Verdict", "training", "error", f"cannot run: {obstacle}", "Cure the errors above, first to last.")
    frameworks = " and ".join(_frameworks(facts))
    return Row("Verdict", "training", "ok", f"{frameworks} with {', '.join(_ways(facts))}")


def _obstacle(facts: Facts) -> str:
    if facts.python < _OLDEST_PYTHON:
        return "this Python is too old"
    if not facts.numpy.works:
        return "NumPy is missing"
    if not facts.torch.works and not facts.tensorflow.works:
        return "neither torch nor TensorFlow works"
    if facts.horovod.version is None:
        return "Horovod is missing"
    if not _frameworks(facts):
        return "Horovod works with no framework that is installed"
    if not facts.horovod.transports & {"mpi", "gloo"}:
        return "Horovod has neither MPI nor Gloo"
    if not _ways(facts):
        if facts.runs:
            return "two processes did not reach each other by any launcher"
        return "no launcher for the transports that Horovod has"
    return ""


def _frameworks(facts: Facts) -> list[str]:
    return [name for name in ("torch", "tensorflow") if facts.horovod.extension(name).works]


def _ways(facts: Facts) -> list[str]:
    """The ways to start workers, and where they were tried those that work."""
    if facts.runs:
        return [way for way, run in facts.runs.items() if not run.error]
    has, transports = {name for name, launcher in facts.launchers.items() if launcher.path}, facts.horovod.transports
    ways = {
        "horovodrun --gloo": {"horovodrun"} <= has and "gloo" in transports,
        "horovodrun --mpi": {"horovodrun", "mpirun"} <= has and "mpi" in transports,
        "mpirun": {"mpirun"} <= has and "mpi" in transports,
        "srun": {"srun"} <= has and "mpi" in transports,
    }
    return [way for way, works in ways.items() if works]
