"""Changing the compressor between two steps: what was not sent yet is kept, flushed or dropped, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import NUMPY, Library, assert_close, bits, normal_gradients, wide
from oracles.averaging import average_models

from hvd_compress import (
    AllGather,
    Cast,
    ConfigurationError,
    ErrorFeedback,
    Half,
    Identity,
    Joined,
    LowRank,
    PowerSGD,
    Schedule,
    Simulator,
    StepSizeScaling,
    TwoWay,
    UsageError,
)

SHAPES = {"matrix": (12, 9), "conv": (6, 4, 3, 3), "bias": (7,)}
JOINED = Joined(ErrorFeedback(AllGather(Cast())), np.inf)
FROM = [PowerSGD(rank=1), ErrorFeedback(AllGather(Cast())), JOINED, ErrorFeedback(TwoWay(Cast(), server_feedback=True))]
TO = [
    PowerSGD(rank=2),
    ErrorFeedback(LowRank(rank=3), a=0.5),
    JOINED,
    Identity(),
    LowRank(rank=64, min_saving=0.0),
    Schedule.of(PowerSGD(rank=1), rank={5: 2}),
    StepSizeScaling(PowerSGD(rank=1)),
]


def steps(simulator: Simulator, numbers: range, library: Library = NUMPY) -> list[dict[str, Any]]:
    world = simulator.world_size
    return [simulator.step(library.arrays(normal_gradients(world, step, SHAPES)))[0] for step in numbers]


def make(compressor: Any, world_size: int = 3) -> Simulator:
    return Simulator(compressor, world_size, allow_larger=True, learning_rate=0.1)


def gradients(numbers: range, world_size: int) -> dict[str, np.ndarray]:
    averages = [average_models(normal_gradients(world_size, step, SHAPES)) for step in numbers]
    return {name: np.sum([a[name] for a in averages], axis=0) for name in SHAPES}


def owed(simulator: Simulator) -> dict[str, np.ndarray]:
    """Return the mean over ranks of all that is remembered: residuals, servers' shards, what waits to be sent."""
    world = simulator.world_size
    total = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    servers: dict[str, list[np.ndarray]] = {}
    for state in simulator.state_dicts():
        for name, x in state["owed"].items():
            total[name] = total[name] + wide(x) / world
        for unit, saved in state["units"].items():
            for path, leaf in saved["leaves"].items():
                last = path.rpartition(".")[2]
                if last == "error":
                    for name, x in (leaf if isinstance(leaf, dict) else {unit: leaf}).items():
                        total[name] = total[name] + wide(x) / world
                elif last == "server":
                    servers.setdefault(unit, []).append(wide(leaf))
    for name, shards in servers.items():
        total[name] = total[name] + np.concatenate(shards)[: total[name].size].reshape(SHAPES[name])
    return total


@pytest.mark.parametrize("residual", ["keep", "flush"])
@pytest.mark.parametrize("after", TO, ids=repr)
@pytest.mark.parametrize("before", FROM, ids=repr)
def test_nothing_is_lost(before: Any, after: Any, residual: Any) -> None:
    """Sum of means + mean of what is remembered = sum of mean gradients: before, at, and long after the change."""
    world = 3
    simulator = make(before, world)
    applied = [*steps(simulator, range(3))]
    remembered = owed(simulator)
    simulator.change_compression(after, residual)
    for name in SHAPES:
        assert_close(owed(simulator)[name], remembered[name], 1e-6, scale=1.0)
    for last in range(3, 6):
        applied += steps(simulator, range(last, last + 1))
        expected, memory = gradients(range(last + 1), world), owed(simulator)
        for name in SHAPES:
            assert_close(sum(wide(m[name]) for m in applied) + memory[name], expected[name], 2e-5, scale=8.0)


@pytest.mark.parametrize("world_size", [1, 2, 4, 5, 7])
@pytest.mark.parametrize("before", FROM, ids=repr)
def test_flushing_sends_everything_at_once(before: Any, world_size: int) -> None:
    simulator = make(before, world_size)
    applied = steps(simulator, range(2))
    simulator.change_compression(PowerSGD(rank=1), "flush")
    applied += steps(simulator, range(2, 3))
    expected = gradients(range(3), world_size)
    for name in SHAPES:
        assert_close(sum(wide(m[name]) for m in applied), expected[name], 1e-5, scale=4.0)
    assert steps(simulator, range(3, 4))[0]["matrix"].shape == (12, 9)
    assert np.linalg.matrix_rank(wide(steps(simulator, range(4, 5))[0]["matrix"]), tol=1e-4) == 1


@pytest.mark.parametrize("before", FROM, ids=repr)
def test_without_a_memory_the_next_gradient_takes_it(before: Any) -> None:
    simulator = make(before)
    steps(simulator, range(2))
    remembered, average = owed(simulator), gradients(range(2, 3), 3)
    simulator.change_compression(Identity(), "keep")
    (mean,) = steps(simulator, range(2, 3))
    for name in SHAPES:
        assert_close(mean[name], average[name] + remembered[name], 1e-5, scale=4.0)
    (mean,) = steps(simulator, range(3, 4))
    assert_close(mean["matrix"], gradients(range(3, 4), 3)["matrix"], 1e-6)


@pytest.mark.parametrize("before", FROM, ids=repr)
@pytest.mark.parametrize("after", TO, ids=repr)
def test_dropping_loses_exactly_the_residual(before: Any, after: Any) -> None:
    """Dropped, it is as if training began with the new compressor, but for the step number."""
    simulator = make(before)
    applied = steps(simulator, range(2))
    remembered = owed(simulator)
    simulator.change_compression(after, "drop")
    applied += steps(simulator, range(2, 5))
    expected, memory = gradients(range(5), 3), owed(simulator)
    for name in SHAPES:
        left = sum(wide(m[name]) for m in applied) + memory[name] + remembered[name]
        assert_close(left, expected[name], 2e-5, scale=8.0)


def test_joined_to_tensors_and_back() -> None:
    simulator = make(JOINED)
    applied = steps(simulator, range(2))
    for last, compressor in enumerate([PowerSGD(rank=1), JOINED, PowerSGD(rank=2), JOINED], start=2):
        simulator.change_compression(compressor)
        applied += steps(simulator, range(last, last + 1))
    expected, memory = gradients(range(6), 3), owed(simulator)
    for name in SHAPES:
        assert_close(sum(wide(m[name]) for m in applied) + memory[name], expected[name], 2e-5, scale=8.0)


@pytest.mark.parametrize("residual", ["keep", "flush", "drop"])
@pytest.mark.parametrize("after", TO, ids=repr)
def test_saved_between_the_change_and_the_next_step(after: Any, residual: Any, library: Library) -> None:
    simulator = make(PowerSGD(rank=1))
    steps(simulator, range(2), library)
    simulator.change_compression(after, residual)
    saved = simulator.state_dicts()
    expected = steps(simulator, range(2, 5), library)
    fresh = make(after)
    fresh.load_state_dicts(saved, library.arrays(normal_gradients(3, 0, SHAPES)))
    for found, right in zip(steps(fresh, range(2, 5), library), expected, strict=True):
        assert all(bits(found[name]) == bits(right[name]) for name in SHAPES)


def test_saved_after_a_flush_and_before_the_first_compressed_step() -> None:
    simulator = make(PowerSGD(rank=1))
    steps(simulator, range(2))
    simulator.change_compression(PowerSGD(rank=2), "flush")
    steps(simulator, range(2, 3))
    fresh = make(PowerSGD(rank=2))
    fresh.load_state_dicts(simulator.state_dicts(), NUMPY.arrays(normal_gradients(3, 0, SHAPES)))
    for found, right in zip(steps(fresh, range(3, 5)), steps(simulator, range(3, 5)), strict=True):
        assert all(bits(found[name]) == bits(right[name]) for name in SHAPES)


def test_changing_twice_before_a_step() -> None:
    simulator, once = make(PowerSGD(rank=1)), make(PowerSGD(rank=1))
    for each in (simulator, once):
        steps(each, range(2))
    simulator.change_compression(Identity(), "flush")
    simulator.change_compression(PowerSGD(rank=3), "keep")
    once.change_compression(PowerSGD(rank=3), "keep")
    for found, right in zip(steps(simulator, range(2, 4)), steps(once, range(2, 4)), strict=True):
        assert all(bits(found[name]) == bits(right[name]) for name in SHAPES)


def test_the_step_number_goes_on() -> None:
    simulator = make(Identity())
    steps(simulator, range(3))
    simulator.change_compression(PowerSGD(rank=2, start_after=4))
    exact, compressed = steps(simulator, range(3, 5))
    assert_close(exact["conv"], gradients(range(3, 4), 3)["conv"], 1e-6)
    assert np.linalg.matrix_rank(wide(compressed["matrix"]), tol=1e-4) == 2


def test_what_cannot_be_changed_to_changes_nothing() -> None:
    simulator, untouched = make(PowerSGD(rank=1)), make(PowerSGD(rank=1))
    for each in (simulator, untouched):
        steps(each, range(2))
    wrong = Schedule({0: Identity(), 5: Joined(Identity(), 1.0)})
    with pytest.raises(ConfigurationError, match="granularity"):
        simulator.change_compression(wrong)
    with pytest.raises(ConfigurationError, match="residual='lose'"):
        simulator.change_compression(Half(PowerSGD()), "lose")  # type: ignore[arg-type]
    assert simulator.compressor == PowerSGD(rank=1)
    for found, right in zip(steps(simulator, range(2, 4)), steps(untouched, range(2, 4)), strict=True):
        assert all(bits(found[name]) == bits(right[name]) for name in SHAPES)


def test_not_while_gradients_are_on_their_way() -> None:
    simulator = make(PowerSGD(rank=1))
    steps(simulator, range(1))
    worker = simulator.workers[0]
    worker.begin(0, NUMPY.arrays(normal_gradients(3, 0, SHAPES))[0])
    with pytest.raises(UsageError, match="on their way"):
        worker.replan(worker.plan, "keep")
