"""hvd_compress.mpi over real mpi4py processes."""

from __future__ import annotations

import pytest
from launching import Launch, Results
from workers import mpi_exchange  # noqa: F401

SESSION = "mpi4py"
MODULES = ("mpi_exchange",)

pytestmark = [pytest.mark.multiprocess, pytest.mark.timeout(900)]


def test_check(launch: Launch, check: str, results: Results) -> None:
    outcome = results(launch, check)
    assert not outcome.faults, "\n".join(outcome.faults)
