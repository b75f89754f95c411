"""Schedules: each phase is its compressor, and what phases have in common goes on across a change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import NUMPY, assert_close, bits, normal_gradients, wide
from oracles.averaging import average_models

from hvd_compress import (
    AllGather,
    AlternatingLowRank,
    Cast,
    ConfigurationError,
    ErrorFeedback,
    Identity,
    Joined,
    LowRank,
    Momentum,
    PowerSGD,
    Schedule,
    Simulator,
    Spec,
    TwoWay,
    Warmup,
)
from hvd_compress.contract import walk

SHAPES = {"matrix": (12, 9), "conv": (6, 4, 3, 3), "bias": (7,)}
COARSE, FINE = ErrorFeedback(Cast("bfloat16")), ErrorFeedback(Cast())


def run(compressor: Any, steps: range, world_size: int = 3) -> tuple[list[dict[str, Any]], Simulator]:
    simulator = Simulator(compressor, world_size, allow_larger=True)
    means = [simulator.step(NUMPY.arrays(normal_gradients(world_size, step, SHAPES)))[0] for step in steps]
    return means, simulator


@pytest.mark.parametrize("compressor", [PowerSGD(rank=2), Cast("bfloat16"), AlternatingLowRank(), COARSE], ids=repr)
@pytest.mark.parametrize("phases", [1, 3])
def test_one_compressor_throughout_is_that_compressor(compressor: Any, phases: int) -> None:
    found, _ = run(Schedule({2 * i: compressor for i in range(phases)}), range(6))
    expected, _ = run(compressor, range(6))
    for left, right in zip(found, expected, strict=True):
        assert all(bits(left[name]) == bits(right[name]) for name in SHAPES)


@pytest.mark.parametrize("world_size", [1, 2, 5, 7])
def test_each_phase_is_its_compressor(world_size: int) -> None:
    found, _ = run(Schedule({0: Identity(), 2: Cast(), 3: TwoWay(Cast("bfloat16"))}), range(5), world_size)
    for step, compressor in enumerate([Identity(), Identity(), Cast(), TwoWay(Cast("bfloat16"))]):
        gradients = NUMPY.arrays(normal_gradients(world_size, step, SHAPES))
        expected = Simulator(compressor, world_size, allow_larger=True).step(gradients)[0]
        if not isinstance(compressor, TwoWay):
            assert all(bits(found[step][name]) == bits(expected[name]) for name in SHAPES)
        assert_close(found[step]["conv"], expected["conv"], 1e-2)


def test_residuals_are_the_next_phases() -> None:
    """Feedback inside every phase is feedback around the schedule: bit for bit the same."""
    inside, _ = run(Schedule({0: COARSE, 3: FINE}), range(6))
    around, _ = run(ErrorFeedback(Schedule({0: Cast("bfloat16"), 3: Cast()})), range(6))
    for left, right in zip(inside, around, strict=True):
        assert all(bits(left[name]) == bits(right[name]) for name in SHAPES)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "schedule",
    [
        Schedule.of(PowerSGD(rank=1), rank={1: 2, 3: 4}),
        Schedule({0: PowerSGD(rank=1), 2: Identity(), 4: PowerSGD(rank=2)}),
        Schedule({0: ErrorFeedback(AllGather(Cast())), 2: PowerSGD(rank=1)}),
    ],
    ids=repr,
)
def test_nothing_is_lost_at_a_change(schedule: Schedule, world_size: int) -> None:
    means, simulator = run(schedule, range(6), world_size)
    gradients = [average_models(normal_gradients(world_size, step, SHAPES)) for step in range(6)]
    for name in SHAPES:
        memories = [wide(s["units"][name]["leaves"].get("error", 0.0)) for s in simulator.state_dicts()]
        applied = sum(wide(mean[name]) for mean in means)
        assert_close(applied + np.mean(memories, axis=0), sum(g[name] for g in gradients), 1e-5, scale=6.0)


def test_only_what_differs_is_kept_apart() -> None:
    operator = Schedule.of(PowerSGD(rank=1), rank={5: 2})
    paths = {path for path, _ in walk(operator.leaves(Spec((12, 9)), 2))}
    assert paths == {"error", "inner.q@0", "inner.q_start@0", "inner.q@5", "inner.q_start@5"}
    same = Schedule({0: PowerSGD(rank=1), 5: PowerSGD(rank=1, power_iterations=2)})
    assert {path for path, _ in walk(same.leaves(Spec((12, 9)), 2))} == {"error", "inner.q", "inner.q_start"}


def test_a_factor_starts_fresh_and_waits_untouched() -> None:
    schedule = Schedule.of(PowerSGD(rank=1), rank={2: 3})
    before, first = (run(schedule, range(steps))[1].state_dicts()[0] for steps in (1, 2))
    leaves, later = before["units"]["conv"]["leaves"], first["units"]["conv"]["leaves"]
    assert bits(leaves["inner.q@2"]) == bits(later["inner.q@2"])
    assert bits(leaves["inner.q@0"]) != bits(later["inner.q@0"])
    after = run(schedule, range(4))[1].state_dicts()[0]["units"]["conv"]["leaves"]
    assert bits(after["inner.q@0"]) == bits(later["inner.q@0"])
    assert bits(after["inner.q@2"]) != bits(later["inner.q@2"])


def test_a_gradient_travels_dense_in_phases_that_do_not_compress_it() -> None:
    """(12 + 9) 4 numbers are less than 12 x 9, (12 + 9) 6 are not."""
    schedule = Schedule.of(PowerSGD(rank=4), rank={2: 6})
    means, simulator = run(schedule, range(4))
    assert not next(unit for unit in simulator.plan.units if unit.name == "matrix").dense
    exact = average_models(normal_gradients(3, 3, SHAPES))
    assert_close(means[3]["matrix"], exact["matrix"], 1e-6)
    spec = Spec((12, 9))
    planned = schedule.for_parameter("matrix", spec)
    assert planned.wire_bytes(spec, 2, 0) == 4 * 21 * 4
    assert planned.wire_bytes(spec, 2, 2) == 4 * 12 * 9


def test_an_overflow_at_the_last_step_of_a_phase_is_forgotten() -> None:
    simulator = Simulator(Schedule.of(PowerSGD(rank=1), rank={2: 3}), 2)
    with np.errstate(all="ignore"):
        for step in range(4):
            gradients = NUMPY.arrays(normal_gradients(2, step, SHAPES))
            if step == 1:
                gradients[0]["conv"][0, 0, 0, 0] = np.inf
            mean = simulator.step(gradients)[1]["conv"]
            assert np.isfinite(mean).all() == (step != 1)
            for saved in simulator.state_dicts():
                for path, leaf in walk(saved["units"]["conv"]["leaves"]):
                    assert step == 1 or np.isfinite(leaf).all(), path


def test_saved_in_one_phase_and_continued_in_the_next() -> None:
    schedule = Schedule({0: PowerSGD(rank=1), 2: Identity(), 3: PowerSGD(rank=2, alternate=True)})
    expected, _ = run(schedule, range(6))
    _, simulator = run(schedule, range(2))
    fresh = Simulator(schedule, 3, allow_larger=True)
    fresh.load_state_dicts(simulator.state_dicts(), NUMPY.arrays(normal_gradients(3, 0, SHAPES)))
    for step in range(2, 6):
        found = fresh.step(NUMPY.arrays(normal_gradients(3, step, SHAPES)))[0]
        assert all(bits(found[name]) == bits(expected[step][name]) for name in SHAPES)


def test_a_schedule_within_a_schedule() -> None:
    inner = Schedule.of(LowRank(rank=1), rank={2: 2})
    outer = Schedule({0: inner, 4: LowRank(rank=3)})
    means, _ = run(outer, range(6))
    for step, rank in enumerate((1, 1, 2, 2, 3, 3)):
        assert np.linalg.matrix_rank(wide(means[step]["matrix"]), tol=1e-4) == rank


def test_of_changes_several_settings_at_once() -> None:
    schedule = Schedule.of(PowerSGD(rank=1), rank={10: 2, 20: 4}, power_iterations={20: 2, 30: 1})
    assert schedule == Schedule(
        (
            (0, PowerSGD(rank=1)),
            (10, PowerSGD(rank=2)),
            (20, PowerSGD(rank=4, power_iterations=2)),
            (30, PowerSGD(rank=4)),
        )
    )
    assert eval(repr(schedule)) == schedule
    assert hash(schedule) == hash(Schedule(dict(schedule.phases)))
    with pytest.raises(ConfigurationError, match="no setting 'ranks'"):
        Schedule.of(PowerSGD(), ranks={3: 2})
    with pytest.raises(ConfigurationError, match="rank=0"):
        Schedule.of(PowerSGD(), rank={3: 0})


@pytest.mark.parametrize(
    "phases",
    [{}, {1: Cast()}, ((0, Cast()), (0, Cast())), ((0, Cast()), (5, Cast()), (2, Cast())), {-1: Cast()}, {0: "fp16"}],
    ids=repr,
)
def test_phases_in_disorder_are_refused(phases: Any) -> None:
    with pytest.raises(ConfigurationError, match="Schedule"):
        Schedule(phases)


def test_phases_of_different_granularity_are_refused_when_planned() -> None:
    schedule = Schedule({0: Identity(), 5: Joined(Cast("bfloat16"), 1.0)})
    with pytest.raises(ConfigurationError, match="one granularity, or Warmup"):
        run(schedule, range(1))
    means, _ = run(Schedule({0: Joined(Cast("bfloat16"), 1.0), 2: Joined(Identity(), 1.0)}), range(3))
    assert_close(means[2]["conv"], average_models(normal_gradients(3, 2, SHAPES))["conv"], 1e-6)


def test_what_any_phase_has_the_schedule_has() -> None:
    assert Schedule({0: Cast(), 5: Momentum(Cast())}).has_momentum
    assert not Schedule({0: Cast(), 5: Warmup(2, Cast())}).has_momentum
    assert not Schedule({0: Cast(), 5: LowRank()}).needs_parameters


def test_what_is_not_compressed_still_has_its_momentum() -> None:
    """A bias that no phase compresses gets the momentum of each phase, as its matrices do."""
    both, _ = run(Schedule({0: Momentum(LowRank()), 2: Momentum(LowRank(rank=2))}), range(4))
    plain, _ = run(Momentum(LowRank()), range(4))
    assert all(bits(left["bias"]) == bits(right["bias"]) for left, right in zip(both, plain, strict=True))


@pytest.mark.parametrize("wrong", ["powersgd", PowerSGD, None], ids=repr)
def test_a_schedule_is_made_of_an_instance(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="an instance such as PowerSGD"):
        Schedule.of(wrong, rank={10: 2})
