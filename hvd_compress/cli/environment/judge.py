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
        problem, cure = obstacle
        return Row("Verdict", "training", "error", f"cannot run: {problem}", cure)
    frameworks = " and ".join(_frameworks(facts))
    return Row("Verdict", "training", "ok", f"{frameworks} with {', '.join(_ways(facts))}")


def _obstacle(facts: Facts) -> tuple[str, str] | None:
    """Return the first thing that training cannot do without, and what to do; None if all are there."""
    transports = facts.horovod.transports & {"mpi", "gloo"}
    needed = (
        (facts.python >= _OLDEST_PYTHON, "this Python is too old", "See the row of python."),
        (facts.numpy.works, "NumPy is missing", "See the row of numpy."),
        (
            facts.torch.works or facts.tensorflow.works,
            "neither torch nor TensorFlow works",
            "See the rows of torch and tensorflow; one of them is needed.",
        ),
        (facts.horovod.version is not None, "Horovod is missing", "See the row of horovod."),
        (
            bool(_frameworks(facts)),
            "Horovod works with no framework that is installed",
            "See the rows of Horovod for torch and for tensorflow; one of them is needed.",
        ),
        (
            bool(transports),
            "Horovod has neither MPI nor Gloo",
            "See the rows of Horovod with MPI and with Gloo; one of them is needed.",
        ),
        (
            bool(_ways(facts)),
            "two processes did not reach each other" if facts.runs else "no launcher for what Horovod was built with",
            "See the rows of the launchers; horovodrun with Gloo, or mpirun with MPI, is needed.",
        ),
    )
    return next(((problem, cure) for there, problem, cure in needed if not there), None)


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
