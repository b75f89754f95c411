"""Law: a step that is not finite is seen by every worker, and does not poison the steps after it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from cases import MODEL, Library, Row, bits, normal_gradients, simulator_of, wide

from hvd_compress import Simulator
from hvd_compress.contract import walk

W = 3
# By step: what is not finite, on which worker, in which parameter and element; None is all of them.
POISON: dict[int, tuple[float, int, str, int | None]] = {
    1: (np.inf, 0, "matrix", 30),
    3: (-np.inf, 1, "conv", 215),
    4: (np.nan, 2, "matrix", 0),
    6: (np.nan, 0, "conv", None),
    7: (np.inf, 2, "scalar", 0),
}
STEPS = 9


@pytest.fixture(autouse=True)
def no_warnings_of_the_arithmetic() -> Any:
    """NumPy warns of the infinities that these tests are about."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "invalid value|overflow", RuntimeWarning)
        yield


def poisoned(step: int, world_size: int) -> list[dict[str, np.ndarray]]:
    gradients = normal_gradients(world_size, step)
    if step in POISON:
        value, rank, name, at = POISON[step]
        gradients[rank % world_size][name].reshape(-1)[slice(None) if at is None else at] = value
    return gradients


def finite_units(simulator: Simulator, means: dict[str, Any]) -> dict[str, bool]:
    """Return for every unit whether all numbers of its mean are finite."""
    units = {unit.name: [means[name] for name, _ in unit.parameters] for unit in simulator.plan.units}
    return {unit: all(bool(np.isfinite(wide(x)).all()) for x in arrays) for unit, arrays in units.items()}


def test_what_is_not_finite_is_seen_and_forgotten(row: Row, library: Library) -> None:
    """Whatever it is, wherever it comes from: in its unit's mean at its step, on all ranks, in no state at no step."""
    simulator = simulator_of(row, W, library)
    for step in range(STEPS):
        means = simulator.step(library.arrays(poisoned(step, W)))
        name = POISON[step][2] if step in POISON else None
        hit = {unit.name for unit in simulator.plan.units if name in dict(unit.parameters)}
        for own in means:
            assert finite_units(simulator, own) == {u.name: u.name not in hit for u in simulator.plan.units}, step
        assert {k: bits(np.isfinite(wide(x))) for k, x in means[0].items()} == {
            k: bits(np.isfinite(wide(x))) for k, x in means[-1].items()
        }
        for rank, saved in enumerate(simulator.state_dicts()):
            for unit, own in saved["units"].items():
                for path, leaf in walk(own["leaves"]):
                    assert np.isfinite(wide(leaf)).all(), f"step {step}, rank {rank}, {unit}: {path}"


def test_one_worker_alone_sees_it_too(row: Row) -> None:
    """With one worker, as in a script that is tried on one machine."""
    library = Library(row.libraries[0])
    simulator = simulator_of(row, 1, library)
    for step in range(3):
        (means,) = simulator.step(library.arrays(poisoned(step, 1)))
        assert all(finite_units(simulator, means).values()) == (step not in POISON)


@pytest.mark.rows("separable")
def test_the_other_layers_do_not_notice(row: Row) -> None:
    """A layer that is not finite changes no bit of another one's update, then or later."""
    library = Library(row.libraries[0])
    spoilt, clean = simulator_of(row, W, library), simulator_of(row, W, library)
    for step in range(4):
        expected = clean.step(library.arrays(normal_gradients(W, step)))[0]
        gradients = normal_gradients(W, step)
        if step == 1:
            gradients[0]["matrix"][0, 0] = np.inf
        means = spoilt.step(library.arrays(gradients))[0]
        assert all(bits(means[name]) == bits(expected[name]) for name in MODEL if name != "matrix")
