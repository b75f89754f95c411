"""Law: error feedback loses nothing. What was not applied is in the memories, weighted as (a, b) say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import MODEL, ROWS, Library, Row, assert_close, dtype_of, normal_gradients, simulator_of, wide
from oracles.averaging import average_models
from oracles.collectives import lockstep

from hvd_compress import Identity, Spec
from hvd_compress.contract import Context, initial_state
from hvd_compress.operators import operator_of
from hvd_compress.ops import ops_of

NO_LOSS = Identity()
WITH_MEMORY = [
    pytest.param(row, Library(name), id=f"{row.id}-{name}") for row in ROWS if row.memory for name in row.libraries
]
STEPS = 6


def residual(state: dict[str, Any], name: str) -> np.ndarray:
    """Return a worker's memory of a parameter: zeros where it keeps none."""
    leaves = state["units"][name]["leaves"]
    return wide(leaves["error"]) if "error" in leaves else np.zeros(MODEL[name])


@pytest.mark.parametrize(("row", "library"), WITH_MEMORY)
def test_nothing_is_lost(row: Row, library: Library, world_size: int) -> None:
    """sum_t b^(T-t) (mean gradient - what was applied) = mean memory; for b = 1 the plain sums."""
    assert row.memory is not None
    decay = row.memory[1]
    simulator = simulator_of(row, world_size)
    owed = {name: np.zeros(shape) for name, shape in MODEL.items()}
    for step in range(STEPS):
        gradients = normal_gradients(world_size, step)
        expected = average_models(gradients)
        means = simulator.step(library.arrays(gradients))[0]
        owed = {name: decay * owed[name] + expected[name] - wide(means[name]) for name in MODEL}
        memories = [{name: residual(state, name) for name in MODEL} for state in simulator.state_dicts()]
        for name, x in average_models(memories).items():
            assert_close(x, owed[name], row.tolerance(), scale=4.0 * (step + 1))


@pytest.mark.parametrize(("row", "library"), WITH_MEMORY)
def test_a_memory_is_one_workers_own(row: Row, library: Library) -> None:
    """Residuals are of each worker's gradient, not of the mean: equal ones would mean that somebody's is lost."""
    simulator = simulator_of(row, 2)
    for step in range(3):
        simulator.step(library.arrays(normal_gradients(2, step)))
    first, second = (residual(state, "conv") for state in simulator.state_dicts())
    assert row.exact or np.abs(first).max() > 0
    assert row.exact or np.abs(first - second).max() > 0.1 * np.abs(first).max()


@pytest.mark.parametrize("shape", [(7,), (12, 9), (6, 4, 3, 3)], ids=str)
def test_rest_is_what_was_not_contributed(row: Row, world_size: int, shape: tuple[int, ...]) -> None:
    """The contract that every wrapper builds on: the mean over workers of (gradient - rest) is what is applied."""
    library = Library(row.libraries[0])
    spec = Spec(shape)
    operator = operator_of(row.compressor, spec)
    if not operator.compresses(spec):
        operator = operator_of(NO_LOSS, spec)
    states: list[Any] = [None] * world_size
    for step in range(3):
        values = [own["g"] for own in normal_gradients(world_size, step, {"g": shape})]
        gradients = [library.array(x) for x in values]
        ops = ops_of(gradients[0])
        if step == 0:
            states = [initial_state(operator.leaves(spec, len(gradients)), ops, "g") for _ in gradients]
        exchanges = [
            operator.exchange(gradient, state, Context(ops, spec, "g", step, rank, world_size, feedback=True))
            for rank, (gradient, state) in enumerate(zip(gradients, states, strict=True))
        ]
        outcomes, _ = lockstep(exchanges)
        states = [outcome.state for outcome in outcomes]
        if row.memory:
            continue  # what a memory keeps is its own affair, told by the law above
        contributed = [
            x if outcome.rest is None else x - wide(outcome.rest) for x, outcome in zip(values, outcomes, strict=True)
        ]
        assert all(outcome.rest is None or dtype_of(outcome.rest) == "float32" for outcome in outcomes)
        assert_close(np.mean(contributed, axis=0), outcomes[0].mean, row.tolerance(), scale=4.0)
