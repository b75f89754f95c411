"""Starts worker processes under a launcher, once for many checks, and reads what every rank wrote."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from workers import harness

import hvd_compress

HERE = Path(__file__).parent
# Start and end of a launch on two busy cores: what the workers allow themselves for both.
LAUNCH_SECONDS = harness.START_SECONDS + harness.SECONDS
# What a check takes on average, with room: TensorFlow traces its functions anew in every one.
CHECK_SECONDS = {"horovod": 2.0, "tensorflow": 12.0, "mpi4py": 2.0}
# A failed check ends its launch, and the checks after it get another one; a launch that does nothing is not repeated.
MAX_LAUNCHES = 12
END_SECONDS = 10.0

SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "2",
    "KERAS_BACKEND": "tensorflow",
    # A stall is reported, then ended, within the shortest time limit of a check (Horovod looks every time that it would
    # report), but not before a machine that stopped for a while has gone on.
    "HOROVOD_STALL_CHECK_TIME_SECONDS": "10",
    "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": "45",
    # Gloo's own limit, 30 s by default, would come first.
    "HOROVOD_GLOO_TIMEOUT_SECONDS": "75",
    # More ranks than cores must not spin while they wait.
    "OMPI_MCA_mpi_yield_when_idle": "1",
}
SET_BY_LAUNCHERS = ("OMPI_COMM_", "OMPI_UNIVERSE_", "PMIX_", "PMI_", "HOROVOD_")


@dataclass(frozen=True)
class Launch:
    """A launcher and a number of ranks.

    Args:
        launcher: "gloo" and "mpi" (horovodrun), "alone" (no launcher, one rank) or "mpi4py" (mpirun).
        ranks: the number of processes.
        parts: beginnings of the names of the checks that it runs; () for all.
        session: what the workers talk through: Horovod as "horovod" (for torch) or "tensorflow", or "mpi4py".
    """

    launcher: str
    ranks: int
    parts: tuple[str, ...] = ()
    session: str = "horovod"

    def __str__(self) -> str:
        return f"{'tensorflow-' if self.session == 'tensorflow' else ''}{self.launcher}-{self.ranks}"

    def command(self, folder: Path) -> list[str]:
        """Return the command line; a launcher that is missing is an error that says the cure."""
        program = [sys.executable, "-m", "workers.run", str(folder)]
        if self.launcher == "alone":
            return program
        if self.launcher == "mpi4py":
            return [_find("mpirun"), "--oversubscribe", "--bind-to", "none", "-np", str(self.ranks), *program]
        if self.launcher == "mpi":
            _find("mpirun")
        return [_find("horovodrun"), "-np", str(self.ranks), f"--{self.launcher}", *program]

    def environment(self) -> dict[str, str]:
        """Return the whole environment of the launcher."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(SET_BY_LAUNCHERS)}
        environment.update(SETTINGS)
        environment["PATH"] = os.pathsep.join([_own_folder(), environment.get("PATH", os.defpath)])
        sources = [str(HERE), str(Path(hvd_compress.__file__).parents[1]), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(part for part in sources if part)
        if os.geteuid() == 0:
            environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        if self.launcher == "alone":  # some MPI libraries abort a process that no launcher started
            environment |= {"HOROVOD_CONTROLLER": "gloo", "HOROVOD_CPU_OPERATIONS": "gloo"}
        return environment


@dataclass
class Outcome:
    """What became of one check: the seconds it took by rank, and what went wrong, if anything did."""

    seconds: dict[int, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


Results = Callable[[Launch, str], Outcome]


def run_checks(launch: Launch, modules: Sequence[str], checks: dict[str, float], folder: Path) -> dict[str, Outcome]:
    """Run checks under a launcher and return what became of each.

    Args:
        launch: launcher and ranks.
        modules: worker modules to import.
        checks: names, in order, and time limits.
        folder: an empty one for files between here and the workers.
    """
    outcomes: dict[str, Outcome] = {}
    pending = list(checks)
    for attempt in range(MAX_LAUNCHES):
        own = folder / f"launch{attempt}"
        own.mkdir()
        request = {"session": launch.session, "ranks": launch.ranks, "modules": list(modules), "checks": pending}
        (own / "request.json").write_text(json.dumps(request))
        # Checks take a small part of their limits; only one of them can run into its own.
        end, output = _run(
            launch, own, LAUNCH_SECONDS + 2 * max(checks.values()) + CHECK_SECONDS[launch.session] * len(pending)
        )
        done = _read(own, launch.ranks, end, output)
        outcomes |= done
        pending = [name for name in pending if name not in done]
        if not pending:
            return outcomes
        if not done:
            break
    for name in pending:
        outcomes[name] = Outcome(faults=[f"It was not reached: the launch {end}.\n{output}"])
    return outcomes


def _run(launch: Launch, folder: Path, seconds: float) -> tuple[str, str]:
    """Return how a launch ended, and the last lines that it printed."""
    with open(folder / "output", "w") as output:
        process = subprocess.Popen(
            launch.command(folder),
            env=launch.environment(),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            end = f"ended with exit status {process.wait(seconds)}"
        except subprocess.TimeoutExpired:
            end = f"did not end within {seconds:.0f} s"
        finally:
            _end_group(process)
    return end, "\n".join((folder / "output").read_text(errors="replace").splitlines()[-60:])


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End the launcher and what is left in its process group; workers end by their own time limits otherwise."""
    for end in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, end)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
            return


def _read(folder: Path, ranks: int, end: str, output: str) -> dict[str, Outcome]:
    """Return the outcome of every check that at least one rank has started."""
    outcomes: dict[str, Outcome] = {}
    for rank in range(ranks):
        log = folder / f"rank{rank}.jsonl"
        for line in log.read_text().splitlines() if log.exists() else []:
            entry = json.loads(line)
            outcome = outcomes.setdefault(entry["check"], Outcome())
            if entry["event"] == "end":
                outcome.seconds[rank] = entry["seconds"]
                if entry["error"] is not None:
                    outcome.faults.append(f"Rank {rank}:\n{entry['error']}")
    for rank in range(ranks):
        stacks = folder / f"rank{rank}.stacks"
        where = stacks.read_text() if stacks.exists() else ""
        for outcome in outcomes.values():
            if rank not in outcome.seconds:
                outcome.faults.append(f"Rank {rank} did not end it: the launch {end}.\n{where}\n{output}")
    return outcomes


def _find(launcher: str) -> str:
    found = shutil.which(launcher, path=os.pathsep.join([_own_folder(), os.environ.get("PATH", os.defpath)]))
    if found is None:
        raise FileNotFoundError(f"{launcher} is not on PATH; run `make setup`, which puts it into .venv.")
    return found


def _own_folder() -> str:
    return str(Path(sys.executable).parent)
