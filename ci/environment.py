"""The virtual environment `.venv` and what is installed into it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fingerprint
from paths import APART, CI, PYTHON, ROOT, VENV
from problem import Problem
from steps import run, say, step

# There while packages are being written: a package that an interruption cut in two looks installed to pip,
# so an environment with this file in it is made anew.
_UNFINISHED = VENV / ".unfinished"

# The checksum of the Horovod wheel that is installed.
_HOROVOD = VENV / ".horovod"

_PROBE = """
import json, sys, sysconfig, torch
from importlib.metadata import version
print(json.dumps({
    "python": "cp%d%d" % sys.version_info[:2],
    "torch": torch.__version__,
    "torch_cuda": torch.version.cuda,
    "tensorflow": version("tensorflow-cpu"),
    "openmpi": version("openmpi"),
    "site_packages": sysconfig.get_path("platlib"),
}))
"""

_VERIFY = """
import horovod.tensorflow, horovod.torch as hvd
assert hvd.mpi_built() and hvd.gloo_built()
"""


@dataclasses.dataclass(frozen=True)
class Installed:
    """The versions that a Horovod wheel is built against."""

    python: str
    torch: str
    torch_cuda: str | None
    tensorflow: str
    openmpi: str
    site_packages: str


def is_usable() -> bool:
    """Whether there is an environment that only needs to be brought up to date."""
    pip = VENV / "bin" / "pip"
    if _UNFINISHED.exists() or not (PYTHON.exists() and pip.exists()):
        return False
    # Scripts name their Python by its full path: those of a moved checkout are broken.
    if f"{VENV}/bin/python" not in pip.read_text(errors="replace"):
        return False
    code = "import pip, sys; print(sys.version.split()[0], sys.prefix)"
    probe = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True)
    return probe.stdout.split(maxsplit=1) == [sys.version.split()[0], f"{VENV}\n"]


def make(fresh: bool) -> None:
    """Create the environment where there is no usable one, and install the pinned packages."""
    fingerprint.forget()
    with _changing():
        if fresh:
            with step("creating .venv (10 seconds)"):
                # Not sys.executable: it may be the one of the very environment that is being replaced.
                run("venv", [getattr(sys, "_base_executable", sys.executable), "-m", "venv", VENV])
        with step("installing torch, TensorFlow, Open MPI and the tools (1 GB to download, 1 to 5 minutes)"):
            _pip("packages", "--requirement", CI / "requirements.txt")
            _pip("packages-alone", "--no-deps", "--requirement", CI / "requirements-alone.txt")
            apart = ("--no-deps", "--upgrade", "--target", APART)
            _pip("packages-apart", *apart, "--requirement", CI / "requirements-apart.txt")


def install_horovod(wheel: Path, checksum: str) -> None:
    if _HOROVOD.exists() and _HOROVOD.read_text() == checksum:
        return
    with _changing(), step("installing Horovod (5 seconds)"):
        # Forced: an edited build has the same version as the one before it.
        _pip("horovod-install", "--no-deps", "--force-reinstall", wheel)
        _HOROVOD.write_text(checksum)


def install_package() -> None:
    with _changing(), step("installing hvd_compress itself, editable (5 seconds)"):
        _pip("package", "--no-deps", "--no-build-isolation", "--editable", ROOT)


def verify() -> None:
    with step("checking that Horovod loads into torch and TensorFlow (15 seconds)"):
        run("verify", [PYTHON, "-c", _VERIFY], cwd=VENV)


def installed() -> Installed:
    """Ask the environment; importing torch is how to learn what it was built for."""
    probe = subprocess.run([PYTHON, "-c", _PROBE], capture_output=True, text=True, cwd=VENV)
    if probe.returncode != 0:
        last = (probe.stderr.strip().splitlines() or ["no message"])[-1]
        raise Problem(f"torch does not load from .venv ({last}): delete the folder .venv and run it again.")
    found = Installed(**json.loads(probe.stdout.splitlines()[-1]))
    if found.torch_cuda is not None and not Path("/dev/nvidiactl").exists():
        say("note: torch is a CUDA build and there is no GPU here; PyTorch's CPU wheel index saves gigabytes")
    return found


def _pip(name: str, *arguments: str | Path) -> None:
    run(name, [PYTHON, "-m", "pip", "install", "--progress-bar", "off", *arguments])


@contextlib.contextmanager
def _changing() -> Iterator[None]:
    if not is_usable():
        _remove()
    VENV.mkdir(exist_ok=True)
    _UNFINISHED.touch()
    yield
    _UNFINISHED.unlink()


def _remove() -> None:
    ours = not VENV.exists() or (VENV / "pyvenv.cfg").exists() or not set(VENV.iterdir()) - {_UNFINISHED}
    if VENV.is_symlink() or not ours:
        raise Problem(f"{VENV} is not a virtual environment: move it out of the way and run it again.")
    shutil.rmtree(VENV, ignore_errors=True)
