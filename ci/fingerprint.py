"""Tells whether `.venv` is what these scripts would make."""

from __future__ import annotations

import hashlib
import platform
import sys

import nccl
from paths import CI, ROOT, VENV

_STAMP = VENV / ".set-up"
_INPUTS = (
    CI / "requirements.txt",
    CI / "requirements-alone.txt",
    CI / "requirements-apart.txt",
    CI / "environment.py",
    CI / "horovod_build.py",
    CI / "nccl.py",
    ROOT / "pyproject.toml",
    ROOT / "setup.py",
)


def fingerprint() -> str:
    """Changes whenever the environment has to be brought up to date."""
    digest = hashlib.sha256()
    # The folder too: scripts in the environment hold absolute paths, so a moved checkout needs a new one.
    for part in (sys.version, platform.machine(), str(ROOT), str(nccl.toolkit()), str(nccl.system_headers())):
        digest.update(part.encode() + b"\0")
    for path in _INPUTS:
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def is_current(wanted: str) -> bool:
    return (VENV / "bin" / "python").exists() and _STAMP.exists() and _STAMP.read_text() == wanted


def record(wanted: str) -> None:
    partial = _STAMP.with_suffix(".partial")
    partial.write_text(wanted)
    partial.replace(_STAMP)


def forget() -> None:
    """Before anything in the environment changes, so that a half-changed one is never taken for current."""
    _STAMP.unlink(missing_ok=True)
