"""Law: steps of one phase differ by numbers alone, and phases come again as an operator tells."""

from __future__ import annotations

from typing import Any

import pytest
from cases import MODEL, Row

from hvd_compress import (
    AlternatingLowRank,
    ByName,
    Cast,
    ErrorFeedback,
    GradiVeQ,
    LowRank,
    Momentum,
    PowerSGD,
    RandomK,
    Schedule,
    Spec,
    StepSizeScaling,
    Warmup,
)
from hvd_compress.contract import Phase, Traffic
from hvd_compress.exchange import Phases, Plan, make_plan

W = 3


def plan_of(compressor: Any) -> Plan:
    return make_plan(compressor, [(name, Spec(shape)) for name, shape in MODEL.items()], W, allow_larger=True)


def test_steps_of_a_phase_ask_for_the_same(row: Row) -> None:
    for unit in plan_of(row.compressor).units:
        start, period = unit.operator.phase_cycle
        asked: dict[Phase, Traffic] = {}
        for step in range(start + 2 * period + 2):
            traffic = unit.operator.traffic(unit.spec, W, step)
            assert asked.setdefault(unit.operator.phase(step), traffic) == traffic, f"{unit.name} at step {step}"


def test_phases_come_again(row: Row) -> None:
    for unit in plan_of(row.compressor).units:
        start, period = unit.operator.phase_cycle
        for step in range(start, start + period):
            for turns in (1, 2, 10**9):
                assert unit.operator.phase(step + turns * period) == unit.operator.phase(step)


def test_every_step_has_a_phase_that_begins_no_later(row: Row) -> None:
    phases = Phases.of(plan_of(row.compressor))
    assert phases.first_steps[0] == 0
    assert [phases.number(first) for first in phases.first_steps] == list(range(len(phases.first_steps)))
    for step in (*range(20), 10**6, 10**12 + 1):
        assert phases.first_steps[phases.number(step)] <= step


@pytest.mark.parametrize(
    ("compressor", "first_steps", "numbers"),
    [
        (Cast(), (0,), [0, 0, 0]),
        (RandomK(0.1, min_size=2), (0,), [0, 0, 0]),
        (PowerSGD(rank=2), (0,), [0, 0, 0]),
        (PowerSGD(rank=2, start_after=3), (0, 3), [0, 0, 0, 1, 1, 1]),
        (AlternatingLowRank(min_saving=0.0), (0, 1), [0, 1, 0, 1]),
        (Warmup(3, AlternatingLowRank(min_saving=0.0)), (0, 3, 4), [0, 0, 0, 1, 2, 1, 2]),
        (Momentum(ErrorFeedback(Warmup(2, LowRank()))), (0, 2), [0, 0, 1, 1]),
        (Schedule({0: Cast(), 1: AlternatingLowRank(min_saving=0.0)}), (0, 1, 2), [0, 1, 2, 1, 2]),
        (Schedule.of(LowRank(rank=1, min_saving=0.0), rank={2: 2, 4: 3}), (0, 2, 4), [0, 0, 1, 1, 2, 2, 2]),
        (GradiVeQ(8, 4, period=5, collect=2), (0, 1, 2), [0, 1, 2, 2, 2, 0, 1, 2]),
        (GradiVeQ(8, 4, period=4, collect=1), (0, 1), [0, 1, 1, 1, 0, 1]),
        (StepSizeScaling(ErrorFeedback(Cast())), (0,), [0, 0]),
        (
            ByName({"twin": Warmup(3, LowRank(min_saving=0.0))}, AlternatingLowRank(min_saving=0.0)),
            (0, 1, 3, 4),
            [0, 1, 0, 2, 3, 2, 3],
        ),
    ],
    ids=repr,
)
def test_phases_of_a_plan(compressor: Any, first_steps: tuple[int, ...], numbers: list[int]) -> None:
    """Warm-ups end, factors alternate, bases are learnt anew; two units that change apart make phases together."""
    phases = Phases.of(plan_of(compressor))
    assert phases.first_steps == first_steps
    assert [phases.number(step) for step in range(len(numbers))] == numbers
