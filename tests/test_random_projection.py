"""RandomProjection: orthonormal rows of a randomised Hadamard transform, the same on all workers at a step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from cases import Library, assert_close, bits, normal_gradients, wide
from hypothesis import given
from hypothesis import strategies as st
from oracles.averaging import average

from hvd_compress import (
    QSGD,
    AllGather,
    ConfigurationError,
    ErrorFeedback,
    Identity,
    QuantizedCompressiveSampling,
    RandomProjection,
    Simulator,
    Spec,
)
from hvd_compress.operators.random_projection import transformed
from hvd_compress.ops import ops_of

WORLDS = (1, 2, 3, 4, 5, 7)


def hadamard(size: int) -> np.ndarray:
    """Return Sylvester's matrix of +1 and -1."""
    return np.ones((1, 1)) if size == 1 else np.kron([[1.0, 1.0], [1.0, -1.0]], hadamard(size // 2))


def projection(operator: RandomProjection, size: int, steps: int = 1, name: str = "w") -> list[np.ndarray]:
    """Return the matrix T^T T of every step, column by column."""
    simulators = [Simulator(operator, 1, allow_larger=True) for _ in range(size)]
    columns = [
        [s.step([{name: x}])[0][name] for _ in range(steps)] for s, x in zip(simulators, np.eye(size), strict=True)
    ]
    return [np.stack([column[step] for column in columns], axis=1) for step in range(steps)]


@pytest.mark.parametrize("size", [1, 2, 4, 8, 64])
def test_the_fast_transform_is_hadamards_matrix(library: Library, size: int) -> None:
    table = np.random.default_rng(size).standard_normal((size, 3))
    array = library.array(table, "float64")
    once = transformed(array, ops_of(array))
    assert_close(once, hadamard(size) @ table, 1e-13)
    assert_close(transformed(once, ops_of(array)), size * table, 1e-13)


@pytest.mark.parametrize(
    ("size", "share", "rank"), [(32, 0.5, 16), (32, 0.1, 4), (16, 0.3, 5), (20, 0.25, 6), (1, 0.1, 1)]
)
def test_what_is_kept_is_a_projection(size: int, share: float, rank: int) -> None:
    """T has orthonormal rows: T^T T is symmetric, its own square, and of the rank that was asked for."""
    (p,) = projection(RandomProjection(Identity(), share, block=16), size)
    assert_close(p, p.T, 1e-12)
    assert np.linalg.norm(p, 2) <= 1 + 1e-12
    if size in (16, 32, 1):
        assert_close(p @ p, p, 1e-12)
        assert np.trace(p) == pytest.approx(rank)
    assert np.linalg.matrix_rank(p, 1e-9) <= rank + (size % 16 > 0) * 2


def test_it_changes_with_step_name_and_seed_alone(library: Library) -> None:
    first, second = projection(RandomProjection(Identity(), 0.5, 16), 16, steps=2)
    other_name = projection(RandomProjection(Identity(), 0.5, 16), 16, name="v")[0]
    other_seed = projection(RandomProjection(Identity(), 0.5, 16, seed=1), 16)[0]
    for other in (second, other_name, other_seed):
        assert np.abs(first - other).max() > 0.1
    assert np.array_equal(first, projection(RandomProjection(Identity(), 0.5, 16), 16)[0])
    x = np.random.default_rng(0).standard_normal(16)
    simulator = Simulator(RandomProjection(Identity(), 0.5, 16), 1, allow_larger=True)
    assert_close(simulator.step([{"w": library.array(x, "float64")}])[0]["w"], first @ x, 1e-12)


def test_the_projection_keeps_its_share_on_average() -> None:
    """E T^T T = k/B I, within five standard errors over steps."""
    count = 200
    made = np.stack(projection(RandomProjection(Identity(), 0.25, 8), 8, steps=count))
    error = np.abs(made.mean(axis=0) - 0.25 * np.eye(8))
    assert np.all(error <= 5 * made.std(axis=0) / math.sqrt(count) + 1e-12)
    assert made.std() > 0.05


@given(size=st.integers(1, 70), block=st.sampled_from([1, 2, 8, 64, 1024]), seed=st.integers(0, 9))
@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_all_coefficients_are_everything(name: str, size: int, block: int, seed: int) -> None:
    """An orthonormal transform there and back, for any length."""
    parts = [own["w"] for own in normal_gradients(2, 0, {"w": (size,)}, seed)]
    simulator = Simulator(RandomProjection(Identity(), 1.0, block), 2, allow_larger=True)
    mean = simulator.step([{"w": Library(name).array(x, "float64")} for x in parts])[0]["w"]
    assert_close(mean, average(parts), 1e-12, scale=4.0)


@pytest.mark.parametrize("world", WORLDS)
def test_linear_where_the_inside_is(library: Library, world: int) -> None:
    parts = [own["w"] for own in normal_gradients(world, 0, {"w": (7, 9)})]
    operator = RandomProjection(Identity(), 0.25, 16)
    means = Simulator(operator, world, allow_larger=True).step([{"w": library.array(x, "float64")} for x in parts])
    alone = Simulator(operator, 1, allow_larger=True).step([{"w": library.array(average(parts), "float64")}])[0]["w"]
    assert_close(means[-1]["w"], alone, 1e-12, scale=4.0)
    assert all(bits(own["w"]) == bits(means[0]["w"]) for own in means)


@pytest.mark.parametrize("world", WORLDS)
def test_nothing_is_lost_under_feedback(world: int) -> None:
    """What the projection leaves out and what the rounding inside loses are both in the memories."""
    simulator = Simulator(
        ErrorFeedback(RandomProjection(AllGather(QSGD(3, 8, "max")), 0.25, 16)), world, allow_larger=True
    )
    owed = np.zeros(37)
    for step in range(5):
        parts = [own["w"] for own in normal_gradients(world, step, {"w": (37,)})]
        owed += average(parts) - simulator.step([{"w": x} for x in parts])[0]["w"]
        kept = [state["units"]["w"]["leaves"]["error"] for state in simulator.state_dicts()]
        assert_close(average(kept), owed, 1e-12, scale=4.0)


def test_an_outlier_is_spread() -> None:
    """The max norm of a transformed one-hot block is 1/sqrt(B) of it, so a coarse grid loses little."""
    x = np.zeros(1024)
    x[77] = 1.0
    noise = {}
    for name, operator in {
        "plain": AllGather(QSGD(1, 1024, "max")),
        "spread": RandomProjection(AllGather(QSGD(1, 1024, "max")), 1.0, 1024),
    }.items():
        y = x + 0.01 * np.random.default_rng(0).standard_normal(1024)
        noise[name] = np.sum((Simulator(operator, 1, allow_larger=True).step([{"w": y}])[0]["w"] - y) ** 2)
    assert noise["spread"] < noise["plain"] / 2


def test_bytes_are_the_shares() -> None:
    spec = Spec((4096,))
    assert RandomProjection(Identity(), 0.25).wire_bytes(spec, 2) == 4096
    assert RandomProjection(Identity(), 0.25).wire_bytes(Spec((4097,)), 2) == 4096 + 1024
    assert RandomProjection(Identity(), 0.001).wire_bytes(spec, 2) == 4 * 4 * 2
    assert RandomProjection(Identity(), 0.5).wire_bytes(Spec(()), 2) == 4


@pytest.mark.parametrize(
    "options", [{}, {"share": 0.25, "block": 64, "levels": 15}, {"alpha": 0.5, "beta": 0.9}], ids=str
)
def test_compressive_sampling_applies_the_whole_gradient_in_time(library: Library, options: dict[str, Any]) -> None:
    """A constant gradient, over and over: with a = b = 1 the average update becomes it."""
    method = QuantizedCompressiveSampling(**options)
    gradients = normal_gradients(2, 0, {"w": (30, 10)})
    wanted = average([own["w"] for own in gradients])
    simulator = Simulator(method, 2, allow_larger=True)
    total, steps = np.zeros((30, 10)), 60
    for _ in range(steps):
        total += wide(simulator.step(library.arrays(gradients))[0]["w"])
    error = np.linalg.norm(total / steps - wanted) / np.linalg.norm(wanted)
    # With weights (a, b) the memory settles where a h is what a step leaves out: part of the gradient is forgotten.
    assert error < (0.1 if method.alpha == method.beta == 1.0 else 0.8)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: RandomProjection(Identity(), share=0.0), "share=0.0"),
        (lambda: RandomProjection(Identity(), share=1.5), "share=1.5"),
        (lambda: RandomProjection(Identity(), block=12), "block=12"),
        (lambda: RandomProjection(Identity(), block=0), "block=0"),
        (lambda: RandomProjection(Identity(), seed=-1), "seed=-1"),
        (lambda: RandomProjection("qsgd"), "must wrap a compressor"),  # type: ignore[arg-type]
        (lambda: QuantizedCompressiveSampling(levels=0), "levels=0"),
        (lambda: QuantizedCompressiveSampling(block=3), "block=3"),
    ],
)
def test_wrong_settings_are_refused(make: Any, told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert told in str(caught.value)
