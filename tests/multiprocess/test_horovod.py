"""hvd_compress.torch over real Horovod processes: Gloo, MPI, and one process without a launcher."""

from __future__ import annotations

import importlib

import pytest
from launching import Launch, Results

SESSION = "horovod"
MODULES = (
    "training",
    "simulated",
    "hooks",
    "options",
    "sparse",
    "agreement",
    "elements",
    "stock_api",
    "checkpoints",
    "namespace",
    "lifecycle",
)
for name in MODULES:
    importlib.import_module(f"workers.{name}")

pytestmark = [pytest.mark.multiprocess, pytest.mark.timeout(900)]


def test_check(launch: Launch, check: str, results: Results) -> None:
    outcome = results(launch, check)
    assert not outcome.faults, "\n".join(outcome.faults)
