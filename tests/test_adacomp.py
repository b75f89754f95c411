"""AdaComp: bins send what the newest gradient lifts above their largest residual."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import Library, assert_close, bits, wide
from hypothesis import given
from hypothesis import strategies as st
from oracles.averaging import average
from oracles.sparsifiers import adacomp

from hvd_compress import (
    AdaComp,
    AdaptiveBins,
    ConfigurationError,
    CorruptPayloadError,
    Simulator,
    Spec,
    StepSizeScaling,
)
from hvd_compress.contract import Context
from hvd_compress.ops import ops_of

STEPS = 6


def follow(library: Library, shape: tuple[int, ...], bin_size: int, slots: int, world: int, seed: int = 0) -> None:
    """Check update and residuals of every step against the transcription."""
    simulator = Simulator(AdaComp(bin_size, bin_size, slots, min_size=0), world, allow_larger=True)
    residuals = [np.zeros(int(np.prod(shape))) for _ in range(world)]
    for step in range(STEPS):
        everyone = [np.random.default_rng([seed, step, rank]).standard_normal(shape) for rank in range(world)]
        found = simulator.step(library.arrays([{"w": g} for g in everyone], "float64"))
        both = [adacomp(r, g.reshape(-1), bin_size, slots) for r, g in zip(residuals, everyone, strict=True)]
        residuals = [left for _, left in both]
        assert_close(wide(found[0]["w"]).reshape(-1), average([sent for sent, _ in both]), 1e-12)
        assert len({bits(own["w"]) for own in found}) == 1
    for saved, residual in zip(simulator.state_dicts(), residuals, strict=True):
        assert_close(wide(saved["units"]["w"]["leaves"]["error"]).reshape(-1), residual, 1e-12)


@pytest.mark.parametrize("world", [1, 2, 3, 4, 5, 7])
def test_the_paper(library: Library, world: int) -> None:
    follow(library, (12, 9), 20, 3, world)


@given(
    n=st.integers(1, 9),
    m=st.integers(1, 9),
    bin_size=st.integers(1, 90),
    slots=st.integers(1, 9),
    seed=st.integers(0, 9),
)
@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_any_size_of_tensors_and_bins(name: str, n: int, m: int, bin_size: int, slots: int, seed: int) -> None:
    follow(Library(name), (n, m), bin_size, slots, 2, seed)


def test_convolutions_have_bins_of_their_own(library: Library) -> None:
    everyone = [{"conv": np.random.default_rng(1).standard_normal((6, 4, 3, 3))}]
    sent = Simulator(AdaComp(7, 50, 2, min_size=0), 1).step(library.arrays(everyone, "float64"))[0]["conv"]
    flat = everyone[0]["conv"].reshape(-1)
    assert_close(wide(sent).reshape(-1), adacomp(np.zeros(216), flat, 50, 2)[0], 1e-13)


def test_how_much_is_sent_follows_from_the_gradient(library: Library) -> None:
    """A bin with one large element sends that one; one of equal ones all that there is room for; one of zeros none."""
    g = np.zeros((3, 10))
    g[0] = 0.1
    g[0, 4] = -5.0
    g[1] = 1.0
    sent = wide(Simulator(AdaComp(10, slots=4, min_size=0), 1).step([{"w": library.array(g)}])[0]["w"])
    assert_close(sent[0], -3.0 * (np.arange(10) == 4), 1e-6)
    assert_close(sent[1], 3.0 * (np.arange(10) < 4), 1e-6)
    assert not sent[2].any()


def test_a_last_bin_of_zeros_with_more_slots_than_elements(library: Library) -> None:
    """There is nothing to fill the slots with, and nothing beyond the end of the tensor is looked at."""
    sent = Simulator(AdaComp(2, slots=2, min_size=0), 1).step([{"w": library.array([[3.0, 0.0, 0.0]])}])[0]["w"]
    assert_close(sent, np.array([[3.0, 0.0, 0.0]]), 0.0)


def test_what_has_no_room_waits(library: Library) -> None:
    """Ten equal elements through slots of 4: gradients of zero afterwards, and the rest still comes."""
    simulator = Simulator(AdaComp(10, slots=4, min_size=0), 1)
    first = wide(simulator.step([{"w": library.array(np.ones((1, 10)))}])[0]["w"])
    second = wide(simulator.step([{"w": library.array(np.zeros((1, 10)))}])[0]["w"])
    assert np.flatnonzero(first).tolist() == [0, 1, 2, 3]
    assert np.flatnonzero(second).tolist() == [4, 5, 6, 7]


def test_nothing_is_lost(library: Library) -> None:
    simulator, owed = Simulator(AdaComp(20, slots=2, min_size=0), 3, allow_larger=True), np.zeros((12, 9))
    for step in range(STEPS):
        everyone = [np.random.default_rng([step, rank]).standard_normal((12, 9)) for rank in range(3)]
        found = simulator.step(library.arrays([{"w": g} for g in everyone], "float64"))[0]["w"]
        owed += average(everyone) - wide(found)
        errors = [wide(saved["units"]["w"]["leaves"]["error"]) for saved in simulator.state_dicts()]
        assert_close(average(errors), owed, 1e-13, scale=4.0)


def test_its_memory_follows_the_learning_rate() -> None:
    """A tenth of the rate: ten times the memory; a rate of 0: no memory used, none changed."""
    simulator = Simulator(StepSizeScaling(AdaComp(10, min_size=0)), 1, learning_rate=1.0)
    rng = np.random.default_rng(0)
    g = [rng.standard_normal((4, 8)) for _ in range(3)]
    simulator.step([{"w": g[0]}])
    left = adacomp(np.zeros(32), g[0].reshape(-1), 10, 4)[1]
    simulator.learning_rate = 0.0
    still = simulator.step([{"w": g[1]}])[0]["w"]
    assert_close(still.reshape(-1), adacomp(np.zeros(32), g[1].reshape(-1), 10, 4)[0], 1e-13)
    simulator.learning_rate = 0.1
    found = simulator.step([{"w": g[2]}])[0]["w"]
    assert_close(found.reshape(-1), adacomp(10 * left, g[2].reshape(-1), 10, 4)[0], 1e-13)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("bin_size", [5, 200])
def test_what_is_not_finite_is_seen_and_forgotten(library: Library, bad: float, bin_size: int) -> None:
    """Also where the bin that it is in sends nothing, and where there is no other bin."""
    simulator = Simulator(AdaComp(bin_size, min_size=0), 2, allow_larger=True)
    for step in range(3):
        everyone = [np.random.default_rng([step, rank]).standard_normal((12, 9)) for rank in range(2)]
        if step == 1:
            everyone[1][7, 7] = bad
        with np.errstate(all="ignore"):
            means = simulator.step(library.arrays([{"w": g} for g in everyone]))
        assert [bool(np.isfinite(wide(own["w"])).all()) for own in means] == [step != 1] * 2
        for saved in simulator.state_dicts():
            assert np.isfinite(wide(saved["units"]["w"]["leaves"]["error"])).all()


@pytest.mark.parametrize("wrong", [11, -11, 9, -32768])
def test_codes_that_cannot_be_are_refused(library: Library, wrong: int) -> None:
    """Of 18 elements in bins of 10 the second bin has 8."""
    ops = ops_of(library.array(0.0))
    operator, spec = AdaptiveBins(10, slots=1), Spec((2, 9))
    state = {"error": ops.zeros((2, 9), "float32")}
    exchange = operator.exchange(library.array(np.ones((2, 9))), state, Context(ops, spec, "w", 0, 0, 1))
    codes, unit = next(exchange)
    sent = [int(x) for x in codes.array]
    with pytest.raises(CorruptPayloadError):
        exchange.send([library.array([[sent[0], wrong]], "int16"), ops.stack([unit.array])])


def test_what_it_sends() -> None:
    """2 bytes a slot, 4 slots in 500 elements or in 50, and one scale."""
    assert AdaComp().wire_bytes(Spec((1000, 1000)), 2) == 2 * 4 * 2000 + 4
    assert AdaComp().wire_bytes(Spec((100, 100, 3, 3)), 3) == 2 * (2 * 4 * 1800 + 4)
    assert AdaComp().wire_bytes(Spec((100, 100), "float64"), 2) == 2 * 4 * 20 + 8


@pytest.mark.parametrize(
    "make",
    [lambda: AdaComp(0), lambda: AdaComp(40000), lambda: AdaComp(conv_bin_size=32768), lambda: AdaComp(slots=0)],
)
def test_settings_out_of_range(make: Any) -> None:
    with pytest.raises(ConfigurationError):
        make()
