"""Importing the package is cheap and touches no framework."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import hvd_compress

ROOT = str(Path(hvd_compress.__file__).parents[1])
FRAMEWORKS = ("torch", "tensorflow", "keras", "horovod", "mpi4py", "jax", "triton")


def loaded_after(code: str) -> set[str]:
    """Return the frameworks that a fresh interpreter has loaded after running `code`."""
    show = f"import sys; print(*[name for name in {FRAMEWORKS!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{code}\n{show}"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_no_framework_is_imported() -> None:
    assert loaded_after("import hvd_compress, hvd_compress.contract, hvd_compress.exchange") == set()


def test_no_framework_is_imported_by_numpy_gradients() -> None:
    code = """
import numpy as np
from hvd_compress import Simulator, names
for name in names():
    simulator = Simulator(name, 2, learning_rate=0.1, allow_larger=True)
    simulator.step([{"w": np.ones((64, 64), np.float32), "b": np.ones(3)}] * 2)
"""
    assert loaded_after(code) == set()


def test_everything_that_is_exported_exists() -> None:
    assert all(hasattr(hvd_compress, name) for name in hvd_compress.__all__)
    assert len(set(hvd_compress.__all__)) == len(hvd_compress.__all__)
