"""DGC, its clipping and its warm-up, and MemSGD: they follow the float64 transcriptions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import NUMPY, Library, assert_close, wide
from oracles.averaging import average
from oracles.feedback import with_feedback
from oracles.momentum import dgc
from oracles.sparsifiers import random_block, random_k, top_k

from hvd_compress import (
    DGC,
    AllGather,
    ErrorFeedback,
    Identity,
    LocalClip,
    MemSGD,
    MomentumCorrection,
    Schedule,
    Simulator,
    Spec,
    TopK,
)
from hvd_compress.contract import Context
from hvd_compress.ops import ops_of

OPS = ops_of(np.zeros(1))
WORLDS = (1, 2, 3, 4, 5, 7)
STEPS = 5


def normal(*key: int, shape: Any = (12, 9)) -> np.ndarray:
    return np.random.default_rng([31, *key]).standard_normal(shape)


def gradients(world: int, step: int, shape: tuple[int, ...] = (12, 9)) -> list[dict[str, np.ndarray]]:
    return [{"w": normal(step, rank, shape=shape)} for rank in range(world)]


@pytest.mark.parametrize("world", WORLDS)
def test_mem_sgd_is_top_k_with_memory(library: Library, world: int) -> None:
    def compress(step: int, corrected: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        sent = [random_k(p, sorted(top_k(p, 11))) for p in corrected]
        return average(sent), sent

    follow(library, MemSGD(0.1, min_size=0), world, compress)


@pytest.mark.parametrize("selection", ["random", "block"])
@pytest.mark.parametrize("world", WORLDS)
def test_mem_sgd_with_shared_positions(library: Library, selection: Any, world: int) -> None:
    method = MemSGD(0.1, selection, min_size=0, seed=5)
    inner = method.expression().inner

    def compress(step: int, corrected: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        drawn = inner.draw(11, Context(OPS, Spec((12, 9)), "w", step, 0, world)).tolist()
        if selection == "block":
            sent = [random_block(p, drawn[0], 11) for p in corrected]
        else:
            assert len(set(drawn)) == 11
            sent = [random_k(p, drawn) for p in corrected]
        return average(sent), sent

    follow(library, method, world, compress)


def follow(library: Library, method: Any, world: int, compress: Any) -> None:
    simulator = Simulator(method, world, allow_larger=True)
    steps = [gradients(world, step) for step in range(STEPS)]
    flat = [[own["w"].reshape(-1) for own in everyone] for everyone in steps]
    updates, memories = with_feedback(compress, flat, 1.0, 1.0)
    for everyone, update in zip(steps, updates, strict=True):
        means = simulator.step(library.arrays(everyone, "float64"))
        assert_close(wide(means[-1]["w"]).reshape(-1), update, 1e-13)
    for saved, memory in zip(simulator.state_dicts(), memories, strict=True):
        assert_close(wide(saved["units"]["w"]["leaves"]["error"]).reshape(-1), memory, 1e-13)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(("nesterov", "clip"), [(False, None), (True, None), (False, 4.0), (True, 9.0)])
def test_dgc(library: Library, world: int, nesterov: bool, clip: float | None) -> None:
    simulator = Simulator(DGC(0.1, 0.7, nesterov, clip, min_size=0), world, allow_larger=True)
    steps = [gradients(world, step) for step in range(STEPS)]
    flat = [[own["w"].reshape(-1) for own in everyone] for everyone in steps]
    expected = dgc(flat, 11, 0.7, nesterov, clip)
    for everyone, update in zip(steps, expected.updates, strict=True):
        found = simulator.step(library.arrays(everyone, "float64"))[0]["w"]
        assert_close(wide(found).reshape(-1), update, 1e-12)
    for rank, saved in enumerate(simulator.state_dicts()):
        leaves = saved["units"]["w"]["leaves"]
        assert_close(wide(leaves["momentum"]).reshape(-1), expected.u[rank], 1e-12)
        assert_close(wide(leaves["error"]).reshape(-1), expected.v[rank], 1e-12)
        assert np.count_nonzero(wide(leaves["momentum"])) == 108 - 11


def test_dgc_where_all_is_sent_is_averaging_without_momentum(library: Library, world_size: int) -> None:
    simulator = Simulator(DGC(1.0, min_size=0), world_size, allow_larger=True)
    for step in range(3):
        everyone = gradients(world_size, step)
        mean = simulator.step(library.arrays(everyone, "float64"))[0]["w"]
        assert_close(mean, average([own["w"] for own in everyone]), 1e-13)


def test_dgc_gives_vectors_momentum_and_clipping_too(library: Library) -> None:
    """A bias travels dense: every element is sent at every step, with momentum that nothing masks."""
    simulator = Simulator(DGC(0.1, 0.5, clip=2.0), 2)
    u = np.zeros(7)
    for step in range(4):
        everyone = gradients(2, step, (7,))
        mean = simulator.step(library.arrays(everyone, "float64"))[0]["w"]
        bound = 2.0 / np.sqrt(2)
        clipped = [own["w"] * min(1.0, bound / np.linalg.norm(own["w"])) for own in everyone]
        u = 0.5 * u + average(clipped)
        assert_close(mean, u, 1e-13)


def test_dgc_warms_up_in_equal_phases_and_keeps_u_and_v() -> None:
    """Sparsity 75, 93.75, 98.44, 99.6, 99.9 %; and the same as one top-k whose ratio is changed by hand."""
    method, shape = DGC(0.001, 0.5, warmup_steps=8, min_size=0), (40, 50)
    shares = [method.traffic(Spec(shape), 2, step)[0][0].count / 2000 for step in range(10)]
    assert shares == [0.25, 0.25, 0.0625, 0.0625, 0.016, 0.016, 0.004, 0.004, 0.001, 0.001]
    simulator = Simulator(method, 2, allow_larger=True)
    steps = [gradients(2, step, shape) for step in range(10)]
    u, v = [np.zeros(2000)] * 2, [np.zeros(2000)] * 2
    for everyone, share in zip(steps, shares, strict=True):
        mean = simulator.step(NUMPY.arrays(everyone, "float64"))[0]["w"]
        sent = []
        for rank in range(2):
            u[rank] = 0.5 * u[rank] + everyone[rank]["w"].reshape(-1)
            v[rank] = v[rank] + u[rank]
            sent.append(random_k(v[rank], sorted(top_k(v[rank], round(share * 2000)))))
            u[rank] = np.where(sent[-1] != 0, 0.0, u[rank])
            v[rank] = v[rank] - sent[-1]
        assert_close(wide(mean).reshape(-1), average(sent), 1e-12)


def test_a_warm_up_never_sends_less_than_what_follows() -> None:
    assert DGC(0.3, warmup_steps=9).expression() == MomentumCorrection(AllGather(TopK(0.3)))
    assert DGC(0.001).expression() == MomentumCorrection(AllGather(TopK(0.001)))
    inner = DGC(0.01, warmup_steps=9).expression().inner
    assert inner == Schedule(
        tuple((s, AllGather(TopK(r))) for s, r in [(0, 0.25), (3, 0.0625), (6, 0.015625), (9, 0.01)])
    )


@pytest.mark.parametrize("world", WORLDS)
def test_a_local_gradient_is_clipped_to_its_share(library: Library, world: int) -> None:
    everyone = gradients(world, 0)
    everyone[0]["w"] *= 1e-3
    bound = 3.0 / np.sqrt(world)
    clipped = [own["w"] * min(1.0, bound / np.linalg.norm(own["w"])) for own in everyone]
    mean = Simulator(LocalClip(Identity(), 3.0), world, allow_larger=True).step(library.arrays(everyone, "float64"))
    assert_close(mean[0]["w"], average(clipped), 1e-13)


@pytest.mark.parametrize("scale", [0.0, 1e-35, 1e-20, 1.0, 1e30])
def test_clipping_any_magnitude(library: Library, scale: float) -> None:
    x = normal(8) * scale
    mean = Simulator(LocalClip(Identity(), 3.0), 1).step([{"w": library.array(x)}])[0]["w"]
    norm = np.linalg.norm(x)
    assert_close(mean, x * min(1.0, 3.0 / norm) if norm else x, 1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_clipping_does_not_hide_what_is_not_finite(library: Library, bad: float) -> None:
    x = normal(8)
    x[3, 3] = bad
    with np.errstate(all="ignore"):
        mean = Simulator(LocalClip(Identity(), 3.0), 1).step([{"w": library.array(x)}])[0]["w"]
    assert not np.isfinite(wide(mean)).any()


def test_a_memory_around_clipping_brings_back_what_was_cut_off(library: Library) -> None:
    simulator = Simulator(ErrorFeedback(LocalClip(TopK(0.2, min_size=0), 2.0)), 3, allow_larger=True)
    owed = np.zeros((12, 9))
    for step in range(4):
        everyone = gradients(3, step)
        owed += average([own["w"] for own in everyone]) - wide(simulator.step(library.arrays(everyone))[0]["w"])
        errors = [wide(saved["units"]["w"]["leaves"]["error"]) for saved in simulator.state_dicts()]
        assert_close(average(errors), owed, 1e-5)
