"""Law: one graph, built once, does at every step what the eager simulator does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import ROWS, TENSORFLOW, WORLD_SIZES, Row, normal_gradients, parameters_of, simulator_of, wide
from graph_simulator import GraphSimulator
from rotation import EVERY, chosen

import hvd_compress as hc
from hvd_compress.exchange import Phases, Plan

# Few layers, as building a graph costs for each of them; "matrix" and "twin" are of one shape.
SHAPES = {"scalar": (), "bias": (7,), "matrix": (12, 9), "twin": (12, 9), "conv": (3, 3, 4, 6), "empty": (3, 0)}
RATES = (1.0, 0.0, 3.0, 2.0, 0.0, 0.5)
# Graphs are simplified before they run, which may round differently; no decision is that close in float64.
TOLERANCE = 1e-9


def steps_of(plan: Plan) -> list[int]:
    """Return steps that cross every change of phase, and one of every phase's later rounds."""
    phases = Phases.of(plan)
    cycles = [unit.operator.phase_cycle for unit in plan.units]
    later = max(start for start, _ in cycles) + 7 * int(np.lcm.reduce([period for _, period in cycles]))
    return sorted({0, 1, *(first + more for first in phases.first_steps for more in (0, 1)), later, later + 1})


def gradients_at(step: int, world_size: int) -> list[dict[str, np.ndarray]]:
    return normal_gradients(world_size, step, SHAPES)


def tolerance_of(row: Row, world_size: int) -> float:
    """Return the relative error to allow; a sum of several float16 numbers has one more rounding in another order."""
    return 4 * row.rounding if row.wire == "float16" and world_size > 2 else TOLERANCE


def check_alike(found: Any, expected: Any, tolerance: float, where: str) -> None:
    """Both are finite in the same places, and there they agree."""
    found, expected = wide(found), wide(expected)
    assert found.shape == expected.shape, where
    finite = np.isfinite(expected)
    assert np.array_equal(np.isfinite(found), finite), where
    scale = np.abs(expected[finite]).max(initial=1.0)
    assert np.abs(found[finite] - expected[finite]).max(initial=0.0) <= tolerance * scale, where


def saved_by_name(saved: dict[str, Any]) -> dict[tuple[str, str], Any]:
    """Return the leaves of a state dict by parameter or unit and path, as state variables are."""
    found: dict[tuple[str, str], Any] = {}
    for unit, own in saved["units"].items():
        for path, leaf in own["leaves"].items():
            found.update({(n, path): x for n, x in leaf.items()} if isinstance(leaf, dict) else {(unit, path): leaf})
    return found


def run(graph: GraphSimulator, eager: hc.Simulator, row: Row) -> None:
    """Take the same steps with both and compare all that comes out; the last step but one is not finite."""
    world = eager.world_size
    tolerance = tolerance_of(row, world)
    eager.set_up(TENSORFLOW.arrays(gradients_at(0, world), "float64"))
    numbers = steps_of(eager.plan)
    for i, step in enumerate([*numbers, numbers[-1] + 1, numbers[-1] + 2]):
        if row.rate:
            graph.learning_rate = eager.learning_rate = row.rate * RATES[i % len(RATES)]
        given = gradients_at(step, world)
        if i == len(numbers):
            given[-1]["matrix"][3, 4] = np.inf
        gradients = TENSORFLOW.arrays(given, "float64")
        graph.move_to(step)
        for worker in eager.workers:
            worker.step = step
        for found, expected in zip(graph.step(gradients), eager.step(gradients), strict=True):
            assert list(found) == list(expected)
            for name, x in expected.items():
                assert found[name].dtype == x.dtype
                check_alike(found[name], x, tolerance, f"{name} at step {step}")
        assert graph.sent_bytes == eager.sent_bytes, f"bytes at step {step}"
    for variables, saved in zip(graph.leaves(), eager.state_dicts(), strict=True):
        leaves = {(name, path): x for name, own in variables.items() for path, x in own.items()}
        expected = saved_by_name(saved)
        assert leaves.keys() == expected.keys()
        for key, x in leaves.items():
            # A variable has its parameter's shape also where one parameter alone makes a joined, flat unit.
            check_alike(x, wide(expected[key]).reshape(x.shape), tolerance, f"state {key}")
    assert graph.traces == 1


ON_TENSORFLOW = [row for row in ROWS if "tensorflow" in row.libraries]
CASES = [
    pytest.param(row, world, id=f"{row.id}-W{world}")
    for index, row in enumerate(ON_TENSORFLOW)
    for world in chosen(WORLD_SIZES if EVERY else (2, 1, 3, 1, 2), "graph", index)
]


@pytest.mark.parametrize(("row", "world"), CASES)
def test_a_graph_does_what_the_simulator_does(row: Row, world: int, where_work_is_done: str) -> None:
    parameters = parameters_of(TENSORFLOW, True, SHAPES, "float64") if row.parameters else None
    graph = GraphSimulator(row.compressor, world, learning_rate=row.rate, parameters=parameters, allow_larger=True)
    run(graph, simulator_of(row, world, TENSORFLOW, parameters=parameters), row)
