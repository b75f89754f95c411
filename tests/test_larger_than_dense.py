"""What would send more than a plain average says so when planned, and travels dense."""

from __future__ import annotations

import re
import warnings
from typing import Any

import pytest
from cases import NUMPY, assert_close, normal_gradients
from oracles.averaging import average_models

from hvd_compress import (
    AllGather,
    Cast,
    ErrorFeedback,
    Identity,
    LowRank,
    Momentum,
    PowerSGD,
    Simulator,
    Spec,
    TwoWay,
    Warmup,
    describe,
)
from hvd_compress.exchange import make_plan

SHAPES = {"matrix": (40, 30), "bias": (6,)}
# Gathered, half of every number from W - 1 others is more than an allreduce of whole ones from W = 5 on.
GATHERED = AllGather(Cast())


@pytest.mark.parametrize("world_size", [1, 2, 4, 5, 8, 64])
@pytest.mark.parametrize("compressor", [GATHERED, ErrorFeedback(GATHERED), Warmup(10, GATHERED)], ids=repr)
def test_a_gather_pays_up_to_four_workers(compressor: Any, world_size: int) -> None:
    spec = Spec((40, 30))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plan = make_plan(compressor, [("matrix", spec)], world_size)
    (unit,) = plan.units
    larger = world_size > 4
    assert unit.passed_over == ("larger" if larger else "")
    assert unit.dense == larger == bool(caught)
    late = 100  # after the warm-up
    assert unit.operator.wire_bytes(spec, world_size, late) <= dense_bytes(spec, world_size)
    if not larger:
        assert unit.operator == compressor


def dense_bytes(spec: Spec, world_size: int) -> int:
    return 2 * (world_size - 1) * spec.nbytes // world_size + 1


def test_the_warning_names_what_and_how_much_and_the_way_out() -> None:
    expected = re.escape(
        "AllGather(Cast()) would send more bytes than a plain average for 2 of 2 units with 8 workers, 100% of the "
        "model ('matrix' is one), which therefore travel dense; pass allow_larger=True to compress them all the same."
    )
    simulator = Simulator(GATHERED, 8)
    with pytest.warns(UserWarning, match=f"^{expected}$"):
        means = simulator.step(NUMPY.arrays(gradients := normal_gradients(8, 0, SHAPES)))
    assert_close(means[0]["matrix"], average_models(gradients)["matrix"], 1e-6)
    assert simulator.sent_bytes == simulator.plan.wire_bytes(8) == sum(-(-14 * 4 * n // 8) for n in (1200, 6))


def test_allow_larger_compresses_all_the_same() -> None:
    simulator = Simulator(GATHERED, 8, allow_larger=True)
    simulator.step(NUMPY.arrays(normal_gradients(8, 0, SHAPES)))
    assert not any(unit.dense for unit in simulator.plan.units)
    assert simulator.sent_bytes == 7 * 2 * (1200 + 6)


def test_a_small_share_is_not_worth_a_warning() -> None:
    """A vector of one number, whose shards are padded, is below a hundredth of the model."""
    parameters = [("matrix", Spec((400, 300))), ("scale", Spec((1,)))]
    plan = make_plan(TwoWay(Cast("bfloat16")), parameters, 8)
    assert [unit.passed_over for unit in plan.units] == ["", "larger"]


def test_one_worker_is_judged_as_two_are() -> None:
    """A script tried on one machine plans what it will plan on two."""
    parameters = [(name, Spec(shape)) for name, shape in SHAPES.items()]
    for compressor in (PowerSGD(), GATHERED, TwoWay(Identity())):
        alone, two = (make_plan(compressor, parameters, world, allow_larger=False) for world in (1, 2))
        assert [unit.operator for unit in alone.units] == [unit.operator for unit in two.units]


def test_what_travels_dense_means_the_same() -> None:
    """Momentum is not lost with the compressor: its dense stand-in has it."""
    with pytest.warns(UserWarning, match="travel dense"):
        plan = make_plan(Momentum(GATHERED), [("matrix", Spec((40, 30)))], 8)
    (unit,) = plan.units
    assert isinstance(unit.operator, Momentum) and unit.operator.has_momentum
    assert unit.passed_over == "larger"


def test_factors_larger_than_the_matrix() -> None:
    """With min_saving=0 a user asks for factors whatever they cost; the plan says what they cost."""
    with pytest.warns(UserWarning, match=re.escape("LowRank(rank=64, min_saving=0.0)")):
        plan = make_plan(LowRank(rank=64, min_saving=0.0), [("matrix", Spec((40, 30)))], 2)
    assert plan.units[0].passed_over == "larger"
    assert not make_plan(LowRank(rank=64, min_saving=0.0), [("m", Spec((40, 30)))], 2, allow_larger=True).units[0].dense


def test_describe_says_so() -> None:
    with pytest.warns(UserWarning, match="travel dense"):
        described = describe(GATHERED, SHAPES, 8)
    assert [unit.passed_over for unit in described.units] == ["larger", "larger"]
    assert "would grow" in str(described)
    assert described.ratio == 1.0
    allowed = describe(GATHERED, SHAPES, 8, allow_larger=True)
    assert allowed.ratio == pytest.approx(0.5, rel=1e-2)
    assert "would grow" not in str(allowed)
