"""Collects the facts; everything that could crash, abort or hang happens in processes with a time limit."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from ...horovod import build, launch, mpi_version, quirks
from ...horovod.allreduce import SUCCESS
from . import child
from .facts import Facts, Launcher, Library, Run, Start
from .probing import Probed, probe

_PROBE_LIMIT = 40.0  # seconds, all at once; TensorFlow takes 5 where nothing else runs
_CURE_LIMIT = 12.0
_VERSION_LIMIT = 10.0
_RUN_LIMIT = 60.0
_LAUNCHERS = ("horovodrun", "mpirun", "srun")
_DISTRIBUTIONS = {
    "torch": ("torch",),
    "tensorflow": ("tensorflow", "tensorflow-cpu", "tensorflow-rocm", "tf-nightly"),
    "mpi4py": ("mpi4py",),
    "keras": ("keras",),
    "numpy": ("numpy",),
}


def gather() -> Facts:
    """Look at everything but real runs."""
    libraries = {name: Library(_version(names)) for name, names in _DISTRIBUTIONS.items()}
    names = [name for name in ("torch", "tensorflow", "mpi4py") if libraries[name].version is not None]
    environment = launch.environment()
    with ThreadPoolExecutor() as pool:
        found_launchers = pool.map(_launcher, _LAUNCHERS)
        found = pool.map(lambda name: probe(name, environment, _PROBE_LIMIT), names)
        probed = dict(zip(names, found, strict=True))
        launchers = dict(zip(_LAUNCHERS, found_launchers, strict=True))
    libraries |= {name: library(libraries[name], name, result) for name, result in probed.items()}
    return Facts(
        python=(sys.version_info.major, sys.version_info.minor, sys.version_info.micro),
        numpy=libraries["numpy"],
        torch=libraries["torch"],
        tensorflow=libraries["tensorflow"],
        keras=libraries["keras"],
        mpi4py=libraries["mpi4py"],
        horovod=with_extensions(build.installed(), probed),
        launchers=launchers,
        starts=_starts(probed),
        root_refused=launch.root_is_refused(),
    )


def with_runs(facts: Facts) -> Facts:
    """Add an allreduce of two processes by every way for which launcher and transport are there."""
    framework = next((name for name in facts.horovod.loaded if name != "mxnet"), None)
    if framework is None:
        return facts
    runs = {}
    for way in launch.WAYS:
        path = facts.launcher(way.split()[0]).path
        transport = "gloo" if way.endswith("--gloo") else "mpi"
        if path is not None and transport in facts.horovod.transports:
            runs[way] = _run(way, framework, path, facts.launcher("mpirun").says)
    return replace(facts, runs=runs)


def library(known: Library, stage: str, probed: Probed) -> Library:
    """Return a package with what a probe of it said.

    Args:
        known: the package as pip knows it.
        stage: of the probe, in which the package is imported.
        probed: what the probe said.
    """
    found = probed.stages.get(stage, {})
    return Library(
        version=found.get("version", known.version),
        error="" if found else probed.error,
        accelerator=found.get("accelerator", ""),
        devices=tuple(found.get("devices", ())),
        mpi=found.get("mpi", ""),
    )


def with_extensions(horovod: build.Horovod, probed: dict[str, Probed]) -> build.Horovod:
    """Return Horovod with what the probes of the frameworks said about its extensions."""
    extensions = dict(horovod.extensions)
    for framework, extension in extensions.items():
        result = probed.get(framework, Probed())
        found = result.stages.get("extension", {})
        error = "" if found else result.error_in("extension") or f"{framework} cannot be imported"
        extensions[framework] = replace(
            extension, error=error, transports=tuple(found.get("transports", ())), mpi=found.get("mpi", "")
        )
    return replace(horovod, extensions=extensions)


def _starts(probed: dict[str, Probed]) -> dict[str, Start]:
    starts = {}
    horovod = next((name for name in build.FRAMEWORKS if _tried(probed.get(name))), None)
    for package, name in (("horovod", horovod), ("mpi4py", "mpi4py")):
        result = probed.get(name) if name else None
        if name is not None and result is not None and _tried(result):
            error = result.error_in("start")
            starts[package] = Start(error, _cures(name) if error else ())
    return starts


def _tried(probed: Probed | None) -> bool:
    return probed is not None and ("start" in probed.stages or probed.failed == "start")


def _cures(name: str) -> tuple[str, ...]:
    """Try what is known to help a process that does not start without a launcher."""
    candidates = [] if name == "mpi4py" else [quirks.WITHOUT_MPI]
    if (Path(sys.prefix) / "bin" / "orted").exists():  # Open MPI from PyPI does not know where it lies
        candidates.append({"OPAL_PREFIX": sys.prefix})
    environment = launch.environment()
    with ThreadPoolExecutor() as pool:
        results = pool.map(lambda extra: probe(name, {**environment, **extra}, _CURE_LIMIT), candidates)
        helped = [extra for extra, result in zip(candidates, results, strict=True) if "start" in result.stages]
    return tuple(" ".join(f"{key}={value}" for key, value in extra.items()) for extra in helped)


def _launcher(name: str) -> Launcher:
    on_path = shutil.which(name)
    path = on_path or shutil.which(name, path=launch.own_folder())
    if path is None:
        return Launcher()
    ended = child.run([path, "--version"], launch.environment(), _VERSION_LIMIT)
    lines = [line.strip() for line in ended.output.splitlines() if line.strip()]
    return Launcher(path, on_path is not None, "\n".join(lines[:3]), ended.failure)


def _run(way: str, framework: str, launcher: str, mpirun_says: str) -> Run:
    program = [sys.executable, "-m", "hvd_compress.horovod.allreduce", framework]
    command = launch.command(way, 2, program, launcher, mpi_version.parse(mpirun_says))
    ended = child.run(command, {**launch.environment(), "TF_CPP_MIN_LOG_LEVEL": "3"}, _RUN_LIMIT)
    error = ended.failure
    if not error and SUCCESS.format(size=2) not in ended.output:
        error = "the workers did not find each other"
    return Run(" ".join(command), round(ended.seconds, 1), error)


def _version(distributions: Iterable[str]) -> str | None:
    for name in distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None
