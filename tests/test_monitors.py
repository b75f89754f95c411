"""How alike workers are: the pure functions, and the same by collectives."""

from __future__ import annotations

import math

import numpy as np
import pytest
from cases import TORCH, Library, assert_close, bits, normal_gradients, wide
from hypothesis import given
from hypothesis import strategies as st
from oracles.collectives import Asked, lockstep
from oracles.scalecom import hamming
from oracles.scalecom import memory_cosine as paper_cosine
from oracles.sketch import largest

from hvd_compress import Cast, ConfigurationError, ErrorFeedback, LowRank, PowerSGD, ScaleCom, Simulator
from hvd_compress.monitors import contraction, index_distance, memory_cosine, similarity
from hvd_compress.ops import ops_of

WORLDS = (1, 2, 3, 4, 5, 7)


def residuals(world: int, size: int, seed: int = 0, shared: float = 1.0) -> list[np.ndarray]:
    common = np.random.default_rng([seed, 99]).standard_normal(size)
    return [shared * common + np.random.default_rng([seed, rank]).standard_normal(size) for rank in range(world)]


def paper_distance(xs: list[np.ndarray], k: int) -> float:
    best = largest(np.mean(xs, axis=0), k)
    return float(np.mean([hamming(largest(x, k), best, k) for x in xs]))


def same(found: float, expected: float, tolerance: float = 1e-12) -> bool:
    return (math.isnan(found) and math.isnan(expected)) or abs(found - expected) <= tolerance


@given(world=st.integers(1, 7), size=st.integers(1, 40), k=st.integers(1, 40), seed=st.integers(0, 99))
@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_pure_functions_are_the_paper_s(name: str, world: int, size: int, k: int, seed: int) -> None:
    k = min(k, size)
    xs = residuals(world, size, seed)
    arrays = [Library(name).array(x.reshape(1, -1), "float64") for x in xs]
    assert same(memory_cosine(arrays), paper_cosine(xs), 1e-9)
    assert same(index_distance(arrays, k), paper_distance(xs, k))
    assert all(np.array_equal(wide(array).ravel(), x) for array, x in zip(arrays, xs, strict=True))


def test_at_the_ends_of_their_ranges() -> None:
    x, zero = np.arange(1.0, 9.0), np.zeros(8)
    assert same(memory_cosine([x, x, 3.0 * x]), 1.0)
    assert same(memory_cosine([x, -x]), -1.0)
    assert math.isnan(memory_cosine([x, zero])) and math.isnan(memory_cosine([x]))
    assert index_distance([x, 2 * x], 3) == 0.0
    assert index_distance([np.eye(6)[i] for i in range(2)], 1) in (0.5, 1.0)
    assert (contraction(x, x), contraction(x, zero), contraction(x, -x)) == (0.0, 1.0, 4.0)
    assert math.isnan(contraction(zero, zero))


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_no_square_is_out_of_range(library: Library, scale: float) -> None:
    xs = residuals(3, 20)
    found = memory_cosine([library.array(scale * x) for x in xs])
    assert same(found, paper_cosine(xs), 1e-6)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(("size", "ratio"), [(40, 8), (13, 4), (3, 100), (1, 1)])
def test_by_collectives_it_is_the_same(library: Library, world: int, size: int, ratio: int) -> None:
    arrays = [library.array(x) for x in residuals(world, size)]
    before = [bits(x) for x in arrays]
    outcomes, rounds = lockstep([similarity(x, world, ratio, ops_of(x)) for x in arrays])
    assert rounds == [[Asked("Sum", size, "float64")] * 2, [Asked("Mean", 1, "float64")]]
    for found in outcomes:
        assert same(found.cosine, memory_cosine(arrays), 1e-9)
        assert same(found.index_distance, index_distance(arrays, -(-size // ratio)), 1e-12)
        assert repr(found) == repr(outcomes[0])
    assert [bits(x) for x in arrays] == before


@pytest.mark.parametrize("world", WORLDS)
def test_the_simulator_compares_its_workers(library: Library, world: int) -> None:
    simulator = Simulator(ScaleCom(5, beta=0.5, min_size=20), world)
    shapes = {"conv": (6, 4, 3, 3), "matrix": (12, 9), "bias": (7,)}
    for step in range(4):
        simulator.step(library.arrays(normal_gradients(world, step, shapes)))
    sent, saved = simulator.sent_bytes, simulator.state_dicts()
    found = simulator.similarity(ratio=10)
    assert found.keys() == {"conv", "matrix"}, "those that have a residual"
    for name, one in found.items():
        memories = [wide(state["units"][name]["leaves"]["error"]).ravel() for state in saved]
        assert same(one.cosine, paper_cosine(memories), 1e-6)
        assert same(one.index_distance, paper_distance(memories, -(-memories[0].size // 10)))
    assert simulator.sent_bytes == sent
    after = simulator.state_dicts()
    for own, then in zip(saved, after, strict=True):
        assert bits(own["units"]["conv"]["leaves"]["error"]) == bits(then["units"]["conv"]["leaves"]["error"])


def test_of_any_residual() -> None:
    shapes = {"matrix": (12, 9), "other": (9, 12)}
    for compressor, kept in [(PowerSGD(rank=1), True), (ErrorFeedback(Cast()), True), (LowRank(), False)]:
        simulator = Simulator(compressor, 2, allow_larger=True)
        assert simulator.similarity() == {}
        simulator.step(TORCH.arrays(normal_gradients(2, 0, shapes)))
        found = simulator.similarity()
        assert found.keys() == (shapes.keys() if kept else set())
        assert all(-1 <= one.cosine <= 1 and 0 <= one.index_distance <= 1 for one in found.values())


def test_workers_with_the_same_data_are_alike_and_others_are_not() -> None:
    alike, strangers = Simulator(ScaleCom(10, min_size=1), 3), Simulator(ScaleCom(10, min_size=1), 3)
    for step in range(6):
        own = normal_gradients(3, step, {"w": (400,)})
        alike.step([own[0]] * 3)
        strangers.step(own)
    near, far = alike.similarity(10)["w"], strangers.similarity(10)["w"]
    assert same(near.cosine, 1.0, 1e-9) and near.index_distance == 0.0
    assert abs(far.cosine) < 0.3 and far.index_distance > 0.2


def test_a_ratio_out_of_range() -> None:
    simulator = Simulator(ScaleCom(4, min_size=1), 2)
    simulator.step(normal_gradients(2, 0, {"w": (40,)}))
    with pytest.raises(ConfigurationError, match="ratio=0"):
        simulator.similarity(0)
    assert_close(simulator.similarity(1)["w"].index_distance, 0.0, 1e-15, scale=1.0)
