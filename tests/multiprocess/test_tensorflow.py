"""hvd_compress.tensorflow and hvd_compress.keras over real Horovod processes: Gloo, MPI, and one without a launcher."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from launching import Launch, Results

SESSION = "tensorflow"
# Launches of their own: these modules import TensorFlow, and Horovod is initialised for it.
MODULES = tuple(
    sorted(
        path.stem
        for path in (Path(__file__).parent / "workers").glob("*.py")
        if path.stem.startswith(("tensorflow_", "keras_"))
    )
)
for name in MODULES:
    importlib.import_module(f"workers.{name}")

pytestmark = [pytest.mark.multiprocess, pytest.mark.timeout(1800)]


def test_check(launch: Launch, check: str, results: Results) -> None:
    outcome = results(launch, check)
    assert not outcome.faults, "\n".join(outcome.faults)
