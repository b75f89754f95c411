"""Which updates grow with the gradient, and what follows for factors around them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import ROWS, Row, normal_gradients, parts_of, wide

import hvd_compress as hc
from hvd_compress import (
    AllGather,
    BlockSign,
    ByName,
    Cast,
    ConfigurationError,
    DistEFBlockSGDM,
    DistEFSGDM,
    ErrorFeedback,
    Identity,
    Joined,
    LocalWeightDecay,
    MemSGD,
    Momentum,
    MomentumCorrection,
    RandomProjection,
    ScaleCom,
    Schedule,
    Simulator,
    SketchedSGD,
    StepSizeScaling,
    TopK,
)
from hvd_compress.methods import Method

SHAPES = {"a": (16, 16), "b": (40, 8), "bias": (7,)}


def scales(compressor: Any) -> bool:
    return not compressor.votes if isinstance(compressor, hc.Codec) else compressor.scales


@pytest.mark.parametrize("row", [pytest.param(row, id=row.id) for row in ROWS if "numpy" in row.libraries])
def test_an_update_grows_with_the_gradient_if_it_says_so(row: Row) -> None:
    """At the first step, by a power of two that rounds nothing, with parameters that decay."""
    if row.wire == "float16":
        return  # its range, not its size, is what ends there
    updates = []
    for factor in (1.0, 1024.0):
        simulator = Simulator(row.compressor, 2, allow_larger=True, learning_rate=0.1)
        simulator.parameters = {name: np.ones(shape) for name, shape in SHAPES.items()}
        gradients = [{name: factor * x for name, x in own.items()} for own in normal_gradients(2, 0, SHAPES)]
        updates.append({name: wide(x) for name, x in simulator.step(gradients)[0].items()})
    small, large = updates
    grown = all(np.allclose(large[name], 1024.0 * small[name], rtol=1e-3, atol=1e-6) for name in SHAPES)
    made_of = row.compressor.expression() if isinstance(row.compressor, Method) else row.compressor
    clipped = any(isinstance(part, hc.LocalClip) for part in parts_of(made_of))
    assert grown == scales(row.compressor) or clipped, row.id


def sent(simulator: Simulator, steps: int) -> list[int]:
    counts = []
    for step in range(steps):
        before = simulator.sent_bytes
        simulator.step(normal_gradients(2, step, SHAPES))
        counts.append(simulator.sent_bytes - before)
    return counts


@pytest.mark.parametrize(
    ("plain", "scheduled"),
    [
        (SketchedSGD(0.02, min_size=8), Schedule({0: SketchedSGD(0.02, min_size=8), 2: SketchedSGD(0.01, min_size=8)})),
        (
            Joined(MemSGD(0.02, min_size=8)),
            Schedule({0: Joined(MemSGD(0.02, min_size=8)), 2: Joined(MemSGD(0.01, min_size=8))}),
        ),
    ],
    ids=["whole-model", "joined"],
)
def test_schedules_of_joined_units_compress(plain: Any, scheduled: Any) -> None:
    """Whether a tensor is compressed is asked of the tensor, not of the flat unit that it is joined into."""
    alone, phases = sent(Simulator(plain, 2, allow_larger=True), 4), sent(Simulator(scheduled, 2, allow_larger=True), 4)
    assert phases[:2] == alone[:2]
    assert phases[2] < alone[2]


@pytest.mark.parametrize(
    "after",
    [
        DistEFSGDM(),
        DistEFBlockSGDM(BlockSign(block=256)),
        DistEFBlockSGDM(BlockSign(block=256), follow_step_size=False),
        Momentum(Identity()),
        MemSGD(0.5),
    ],
    ids=repr,
)
def test_a_residual_that_is_kept_is_sent_once(after: Any) -> None:
    """Also where the new compressor has momentum, or residuals that follow the learning rate."""
    simulator = Simulator(MemSGD(0.1, min_size=8), 2, learning_rate=0.1, allow_larger=True)
    for step in range(3):
        simulator.step(normal_gradients(2, step, SHAPES))
    states = simulator.state_dicts()
    owed = {name: np.mean([s["units"][name]["leaves"]["error"] for s in states], axis=0) for name in ("a", "b")}
    simulator.change_compression(after, residual="keep")
    zeros = [{name: np.zeros(shape) for name, shape in SHAPES.items()} for _ in range(2)]
    applied = {name: np.zeros(SHAPES[name]) for name in owed}
    for _ in range(400):
        update = simulator.step(zeros)[0]
        applied = {name: applied[name] + update[name] for name in owed}
    for name, x in owed.items():
        assert np.linalg.norm(applied[name] - x) < 0.05 * np.linalg.norm(x), name


def test_a_memory_inside_a_projection_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="put the memory around the projection"):
        Simulator(RandomProjection(ErrorFeedback(Cast())), 2).step(normal_gradients(2, 0, SHAPES))


def test_step_sizes_reach_the_memory_of_momentum_correction() -> None:
    """What was owed at a rate is owed at that rate: with mu = 0 it is error feedback."""
    inner = AllGather(TopK(0.05, min_size=8))
    left = Simulator(StepSizeScaling(MomentumCorrection(inner, momentum=0.0)), 2, allow_larger=True)
    right = Simulator(StepSizeScaling(ErrorFeedback(inner)), 2, allow_larger=True)
    for step, rate in enumerate((0.1, 0.1, 0.0, 0.01, 0.01)):
        left.learning_rate = right.learning_rate = rate
        gradients = normal_gradients(2, step, {"a": SHAPES["a"]})
        found, expected = left.step(gradients)[0]["a"], right.step(gradients)[0]["a"]
        if rate:
            np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_filter_that_would_keep_nothing_is_refused() -> None:
    for name in ("forgetting", "literal"):
        with pytest.raises(ConfigurationError, match="give a beta below 1"):
            ScaleCom(filter=name)


def test_policies_and_wrappers_pass_it_on() -> None:
    assert not ByName({"a": LocalWeightDecay(Cast(), 0.1)}, Cast()).scales
    assert not StepSizeScaling(LocalWeightDecay(Cast(), 0.1)).scales
    assert ByName({"a": Cast()}, Cast()).scales
