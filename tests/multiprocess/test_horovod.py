"""hvd_compress.torch over real Horovod processes: Gloo, MPI, and one process without a launcher."""

from __future__ import annotations

import importlib

import pytest
from launching import Launch, Results

SESSION = "horovod"
MODULES = (
    "training",
    "simulated",
    "scalecom",
    "sign_methods",
    "quantised",
    "hooks",
    "options",
    "sparse",
    "sparse_methods",
    "agreement",
    "elements",
    "stock_api",
    "changing",
    "checkpoints",
    "namespace",
    "lifecycle",
    "sketched",
    "spectral",
)
for name in MODULES:
    importlib.import_module(f"workers.{name}")

pytestmark = [pytest.mark.multiprocess, pytest.mark.timeout(900)]


def test_check(launch: Launch, check: str, results: Results) -> None:
    outcome = results(launch, check)
    assert not outcome.faults, "\n".join(outcome.faults)
