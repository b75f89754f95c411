"""Law: a step that is not finite is seen by every worker, and does not poison the steps after it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from cases import MODEL, Library, Row, normal_gradients, simulator_of, wide

from hvd_compress.contract import walk

W, BAD_STEP = 2, 2


@pytest.fixture(autouse=True)
def no_warnings_of_the_arithmetic() -> Any:
    """NumPy warns of the infinities that these tests are about."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "invalid value|overflow", RuntimeWarning)
        yield


@pytest.mark.parametrize("poison", [np.inf, -np.inf, np.nan])
def test_an_overflow_ends_with_its_step(row: Row, library: Library, poison: float) -> None:
    simulator = simulator_of(row, W, library)
    shapes = {"matrix": MODEL["matrix"], "bias": MODEL["bias"]}
    for step in range(BAD_STEP + 4):
        gradients = normal_gradients(W, step, shapes)
        if step == BAD_STEP:
            gradients[1]["matrix"][3, 4] = poison
        means = simulator.step(library.arrays(gradients))
        finite = [bool(np.isfinite(wide(own["matrix"])).all()) for own in means]
        assert finite == [step != BAD_STEP] * W, f"step {step}"
        assert all(np.isfinite(wide(own["bias"])).all() for own in means)
    for saved in simulator.state_dicts():
        for unit in saved["units"].values():
            assert all(np.isfinite(wide(leaf)).all() for _, leaf in walk(unit["leaves"]))


def test_memory_stays_finite_at_the_overflow_itself(row: Row, library: Library) -> None:
    if row.memory is None:
        return  # the law speaks of memories; rows without one are covered above
    simulator = simulator_of(row, W, library)
    for step in range(BAD_STEP + 1):
        gradients = normal_gradients(W, step, {"matrix": MODEL["matrix"]})
        if step == BAD_STEP:
            gradients[0]["matrix"][0, 0] = np.inf
        simulator.step(library.arrays(gradients))
        for saved in simulator.state_dicts():
            leaves = saved["units"]["matrix"]["leaves"]
            errors = [leaf for path, leaf in leaves.items() if path.endswith("error")]
            assert errors or row.id.startswith("warmup")
            assert all(np.isfinite(wide(error)).all() for error in errors)
