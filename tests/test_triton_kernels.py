"""Kernels in Triton: they do what torch does without them, are compiled for CUDA, and nobody gets them unasked.

Whether they run on a device is seen by tests/multiprocess/test_cuda.py, where there is one.
"""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from triton_checks import run_checks

import hvd_compress
from hvd_compress import ConfigurationError
from hvd_compress.ops import TorchOps
from hvd_compress.ops.kernels import SWITCH, kernels_for

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
# As ci/requirements-apart.txt says: where it is wanted and missing, tests fail.
HAS_TRITON = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="Triton is not installed on such machines"
)


@HAS_TRITON
@pytest.mark.slow
@pytest.mark.timeout(660)
@pytest.mark.parametrize("name", ["checks.py", "far.py"])
def test_interpreted_they_are_what_torch_does(name: str, tmp_path: Path) -> None:
    run_checks(name, tmp_path, TRITON_INTERPRET="1")


@HAS_TRITON
@pytest.mark.slow
@pytest.mark.timeout(660)
def test_they_are_compiled_for_cuda(tmp_path: Path) -> None:
    run_checks("compiled.py", tmp_path)
    assert list(tmp_path.rglob("*.cubin"))


@pytest.mark.parametrize("wanted", [None, "", "0"])
def test_nobody_gets_them_unasked(wanted: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    if wanted is not None:
        monkeypatch.setenv(SWITCH, wanted)
    assert kernels_for(CUDA) is None
    assert kernels_for(CPU) is None


def test_without_triton_who_asks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never are they left out in silence."""
    monkeypatch.setenv(SWITCH, "1")
    for name in [name for name in sys.modules if name.startswith("hvd_compress.ops.triton_kernels")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(ConfigurationError, match=r"HVD_COMPRESS_TRITON='1'.*\(triton\); install `triton`, or unset"):
        TorchOps(CUDA)


def test_the_switch_is_on_or_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "yes")
    with pytest.raises(ConfigurationError, match="HVD_COMPRESS_TRITON='yes' is neither 0 nor 1"):
        TorchOps(CUDA)


def test_tensors_on_a_processor_import_nothing() -> None:
    program = """
import os, sys
os.environ["HVD_COMPRESS_TRITON"] = "1"
import torch
from hvd_compress import Simulator
Simulator("efsignsgd", 2, learning_rate=0.1, allow_larger=True).step([{"w": torch.ones(64, 64)}] * 2)
print([name for name in sys.modules if name.startswith("hvd_compress.ops.triton_kernels")])
"""
    root = Path(hvd_compress.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=90, check=True
    )
    assert done.stdout.strip() == "[]"
