"""hvd_compress.torch on a CUDA device, where there is one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from launching import Launch, Results
from triton_checks import run_checks
from workers import cuda  # noqa: F401

SESSION = "horovod"
MODULES = ("cuda",)
# One rank, through NCCL where Horovod has it; two ranks share the device through Gloo, which NCCL would refuse.
LAUNCHES = [Launch("gloo", 1)] + [Launch("gloo", 2)] * ("HVD_COMPRESS_TEST_RANKS" not in os.environ)

pytestmark = [
    pytest.mark.multiprocess,
    pytest.mark.cuda,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is present"),
]


def test_check(launch: Launch, check: str, results: Results) -> None:
    outcome = results(launch, check)
    assert not outcome.faults, "\n".join(outcome.faults)


def test_kernels_in_triton(tmp_path: Path) -> None:
    """Compiled and run on the device they are what torch does there: operation by operation, in codecs, in training."""
    run_checks("checks.py", tmp_path, HVD_COMPRESS_TEST_DEVICE="cuda")
