"""Checks of kernels in Triton, each file for a process of its own: Triton interprets or compiles, never both."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# What set-up keeps off the path of all other processes, as Triton and TensorFlow do not bear each other in one.
APART = Path(sys.prefix) / "apart"
FOLDER = Path(__file__).parent / "in_triton"


def run_checks(name: str, cache: Path, **environment: str) -> None:
    """Run one file of checks and fail with what it says; `cache` is for what is compiled."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("TRITON_", "HVD_COMPRESS_TRITON", "PYTEST_"))}
    paths = [str(APART), *filter(None, [inherited.get("PYTHONPATH")])]
    inherited["PYTHONPATH"] = os.pathsep.join(paths)
    environment = {**inherited, "OMP_NUM_THREADS": "1", "TRITON_CACHE_DIR": str(cache), **environment}
    command = [sys.executable, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", str(FOLDER / name)]
    done = subprocess.run(
        command, env=environment, cwd=FOLDER.parents[1], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr
    assert " skipped" not in done.stdout
