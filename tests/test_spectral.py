"""Atomo, unbiased low rank and GradiVeQ are their papers' algorithms, held to float64 transcriptions."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from cases import TORCH, Library, assert_close, bits, wide
from hypothesis import given
from hypothesis import strategies as st
from oracles.averaging import average
from oracles.collectives import lockstep
from oracles.low_rank_others import atomo, gradiveq, unbiased_low_rank

from hvd_compress import (
    AllGather,
    Atomo,
    ConfigurationError,
    GradiVeQ,
    Operator,
    RandomLowRank,
    Simulator,
    SliceProjection,
    Spec,
    Spectral,
    UnbiasedLowRank,
    Warmup,
)
from hvd_compress.contract import Context, initial_state
from hvd_compress.operators import operator_of
from hvd_compress.ops import ops_of

OPS = ops_of(np.zeros(1))
WORLDS = pytest.mark.parametrize("world", [1, 2, 3, 4, 5, 7])


def normal(shape: tuple[int, ...], *seed: int) -> np.ndarray:
    return np.random.default_rng([8, *seed]).standard_normal(shape)


def with_values(n: int, m: int, values: list[float]) -> np.ndarray:
    """Return an n x m matrix with these singular values."""
    u, v = (np.linalg.qr(normal((size, len(values)), size))[0] for size in (n, m))
    return (u * values) @ v.T


def simulated(
    compressor: Any, parts: list[np.ndarray], library: Library, dtype: str = "float64", steps: int = 1
) -> Any:
    simulator = Simulator(compressor, len(parts), allow_larger=True)
    for _ in range(steps):
        means = simulator.step([{"w": library.array(part, dtype)} for part in parts])
    assert all(bits(own["w"]) == bits(means[0]["w"]) for own in means)
    return means[0]["w"]


def offset_of(key: tuple[int | str, ...]) -> float:
    return float(OPS.uniform((1,), "float64", key)[0])


def odds(values: np.ndarray, rank: int) -> np.ndarray:
    return np.minimum(1.0, rank * values / values.sum())


# --- Atomo ---


@WORLDS
def test_atomo_is_the_papers(library: Library, world: int) -> None:
    """The average of every worker's own random triplets, step by step."""
    for n, m, rank in ((11, 7, 2), (6, 13, 3), (9, 9, 1)):
        simulator = Simulator(AllGather(Spectral(rank)), world, allow_larger=True)
        for step in range(3):
            parts = [normal((n, m), step, worker, rank) for worker in range(world)]
            expected = average([atomo(x, rank, offset_of(("w", step, i))) for i, x in enumerate(parts)])
            if not Spectral(rank).compresses(Spec((n, m))):
                expected = average(parts)
            means = simulator.step([{"w": library.array(x, "float64")} for x in parts])
            assert_close(means[0]["w"], expected, 1e-9, scale=10.0)


@given(n=st.integers(1, 9), m=st.integers(1, 9), rank=st.integers(1, 12), seed=st.integers(0, 999))
@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_any_matrix_there_and_back(name: str, n: int, m: int, rank: int, seed: int) -> None:
    """Also of lower rank, and for more triplets than there are; slots that hold none are zero."""
    library, codec = Library(name), Spectral(rank)
    for true_rank in {0, 1, min(n, m)}:
        matrix = normal((n, true_rank), seed) @ normal((true_rank, m), seed, 1)
        array, key = library.array(matrix, "float64"), ("w", seed)
        ops, spec = ops_of(array), Spec((n, m), "float64")
        parts = codec.encode(array, ops, key)
        assert [(wide(part).shape, ops.dtype(part)) for part in parts] == [
            ((count,), dtype) for count, dtype in codec.payload(spec)
        ]
        out = wide(codec.decode(parts, spec, ops))
        assert_close(out, atomo(matrix, rank, offset_of(key)), 1e-8, scale=10.0)
        assert np.linalg.matrix_rank(out, tol=1e-8) <= rank
        total = codec.accumulate_(library.array(np.ones((n, m)), "float64"), parts, spec, ops)
        assert_close(total, out + 1.0, 1e-9, scale=10.0)


def picks(values: list[float], rank: int, draws: int) -> np.ndarray:
    """Return, by draw, which of the singular triplets were picked."""
    matrix = np.zeros((len(values), len(values) + 1))
    np.fill_diagonal(matrix, values)
    codec, spec, taken = Spectral(rank), Spec(matrix.shape, "float64"), []
    for draw in range(draws):
        out = codec.decode(codec.encode(matrix, OPS, ("w", draw)), spec, OPS)
        taken.append(np.diagonal(np.asarray(out)) != 0)
    return np.array(taken)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_triplets_are_picked_as_often_as_they_should(rank: int) -> None:
    values, draws = np.array([9.0, 4.0, 2.0, 1.0, 0.5, 0.25]), 3000
    taken, p = picks(list(values), rank, draws), odds(values, rank)
    assert np.all(np.abs(taken.mean(0) - p) <= 5 * np.sqrt(p * (1 - p) / draws) + 1e-12)
    assert set(taken.sum(1)) <= {int(np.floor(p.sum())), int(np.ceil(p.sum()))}
    assert p.sum() <= rank


def test_equal_values_are_not_dropped_by_rounding() -> None:
    """Where the odds add up to the rank exactly, every draw fills all slots."""
    taken = picks([1.0] * 7, 3, 300)
    assert set(taken.sum(1)) == {3}


@pytest.mark.parametrize("values", [[5.0, 3.0, 1.0, 0.5], [1.0, 1.0, 1.0, 1.0], [4.0, 0.0, 0.0, 0.0]], ids=str)
def test_atomo_is_unbiased(values: list[float]) -> None:
    """Within 5 sigma in every element, over draws; the expected squared error is sum sigma^2 (1/p - 1)."""
    matrix, draws, rank = with_values(8, 6, values), 2000, 2
    codec, spec = Spectral(rank), Spec((8, 6), "float64")
    outs = np.array([codec.decode(codec.encode(matrix, OPS, ("w", i)), spec, OPS) for i in range(draws)])
    assert np.all(np.abs(outs.mean(0) - matrix) <= 5 * outs.std(0) / np.sqrt(draws) + 1e-9)
    s = np.array(values)
    p = odds(s, rank)
    errors = np.sum((outs - matrix) ** 2, axis=(1, 2))
    expected = float(np.sum(s[p > 0] ** 2 * (1 / p[p > 0] - 1)))
    assert abs(errors.mean() - expected) <= 5 * errors.std() / np.sqrt(draws) + 1e-9


def test_workers_draw_for_themselves() -> None:
    """The same gradient on all workers: their draws differ, so that the average is nearer than each."""
    matrix = with_values(8, 6, [3.0, 2.0, 1.5, 1.0])
    errors = [np.sum((wide(simulated(Atomo(1), [matrix] * w, Library("numpy"))) - matrix) ** 2) for w in (1, 32)]
    assert errors[1] < 0.5 * errors[0]


def test_one_triplet_is_exact(library: Library) -> None:
    """A matrix of rank 1 has p = 1 for any r: nothing is left to chance."""
    matrix = np.outer(normal((9,)), normal((7,), 1))
    assert_close(simulated(Atomo(2), [matrix], library, "float32"), matrix, 1e-5)


@pytest.mark.parametrize("shape", [(3, 2, 4, 5), (6, 5, 7)], ids=str)
def test_kernels_of_both_layouts_are_matrices(shape: tuple[int, ...]) -> None:
    """torch: shape[0] x rest; TensorFlow: rest x shape[-1]; both through the operator that carries the codec."""
    x, operator = normal(shape), AllGather(Spectral(2))
    for axis, rows in ((0, (shape[0], -1)), (-1, (-1, shape[-1]))):
        spec = Spec(shape, "float64", output_axis=axis)  # type: ignore[arg-type]
        (outcome,), _ = lockstep([operator.exchange(x.copy(), {}, Context(OPS, spec, "w", 0, 0, 1, feedback=True))])
        expected = atomo(x.reshape(rows), 2, offset_of(("w", 0, 0))).reshape(shape)
        assert_close(outcome.mean, expected, 1e-9)
        assert_close(outcome.rest, x - expected, 1e-9)


@pytest.mark.parametrize(("dtype", "allowed"), [("bfloat16", 2.0**-7), ("float16", 2.0**-10)])
def test_half_precision_gradients_are_factored_in_float32(dtype: str, allowed: float) -> None:
    matrix = np.outer(np.arange(1.0, 9.0), np.arange(1.0, 7.0)) * 64
    mean = simulated(Atomo(2), [matrix] * 3, TORCH, dtype)
    assert_close(mean, matrix, allowed)


@pytest.mark.parametrize(
    ("shape", "rank", "expected"),
    [
        ((12, 9), 3, True),
        ((12, 9), 6, False),
        ((4, 4), 2, False),
        ((12,), 1, False),
        ((), 1, False),
        ((0, 5), 1, False),
    ],
)
def test_what_atomo_is_worth(shape: tuple[int, ...], rank: int, expected: bool) -> None:
    assert Atomo(rank).compresses(Spec(shape)) is Spectral(rank).compresses(Spec(shape)) is expected


def test_a_codec_that_is_not_to_be_cut_is_gathered() -> None:
    assert operator_of(Spectral(2), Spec((12, 9))) == AllGather(Spectral(2)) == Atomo(2).expression()
    assert Atomo(2).wire_bytes(Spec((12, 9)), 4) == 3 * 2 * (12 + 9) * 4


@pytest.mark.parametrize("poison", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_is_seen_by_all(library: Library, poison: float) -> None:
    """An SVD of it would raise; every method shows it in the mean, and none keeps it."""
    for compressor in (Atomo(2), UnbiasedLowRank(2, min_saving=0.0), GradiVeQ(8, 3, 3, 1)):
        simulator = Simulator(compressor, 3, allow_larger=True)
        for step in range(5):
            parts = [normal((12, 9), step, worker) for worker in range(3)]
            if step in (1, 3):
                parts[1][4, 5] = poison
            with np.errstate(all="ignore"):
                means = simulator.step([{"w": library.array(part)} for part in parts])
            assert [bool(np.isfinite(wide(own["w"])).all()) for own in means] == [step not in (1, 3)] * 3


# --- unbiased low rank ---


def directions(step: int, rank: int, m: int, seed: int = 0) -> np.ndarray:
    """Return the normal numbers, m x r, that all ranks draw at a step."""
    return np.asarray(OPS.normal((rank, m), "float64", (seed, "w", step))).T


@WORLDS
def test_random_low_rank_is_m_u_u(library: Library, world: int) -> None:
    for n, m, rank in ((11, 7, 2), (5, 13, 3), (4, 3, 9), (1, 6, 1)):
        used = min(n, m, rank)
        simulator = Simulator(RandomLowRank(rank, seed=4, min_saving=0.0), world, allow_larger=True)
        for step in range(3):
            parts = [normal((n, m), step, worker) for worker in range(world)]
            expected = unbiased_low_rank(average(parts), directions(step, used, m, seed=4))
            means = simulator.step([{"w": library.array(x, "float64")} for x in parts])
            assert_close(means[0]["w"], expected, 1e-9, scale=10.0)


def test_random_low_rank_is_unbiased() -> None:
    """Within 5 sigma in every element, with the expected squared error of (m + 1)/r."""
    matrix, rank, draws = normal((6, 5)), 2, 3000
    simulator = Simulator(UnbiasedLowRank(rank, min_saving=0.0), 1, allow_larger=True)
    outs = np.array([wide(simulator.step([{"w": matrix}])[0]["w"]) for _ in range(draws)])
    assert np.all(np.abs(outs.mean(0) - matrix) <= 5 * outs.std(0) / np.sqrt(draws))
    errors = np.sum((outs - matrix) ** 2, axis=(1, 2)) / np.sum(matrix**2)
    assert abs(errors.mean() - (5 + 1) / rank) <= 5 * errors.std() / np.sqrt(draws)


def test_layers_and_seeds_have_their_own_directions() -> None:
    matrix = normal((8, 6))
    means = Simulator(RandomLowRank(2), 1).step([{"a": matrix, "b": matrix}])[0]
    other = Simulator(RandomLowRank(2, seed=1), 1).step([{"a": matrix}])[0]
    assert not np.allclose(means["a"], means["b"])
    assert not np.allclose(means["a"], other["a"])


@pytest.mark.parametrize(
    ("shape", "rank", "min_saving", "expected"),
    [
        ((33, 2), 1, 1.0, True),
        ((33, 2), 1, 2.0, False),
        ((12, 4), 4, 1.0, False),
        ((12, 4), 4, 0.0, True),
        ((12,), 1, 0.0, False),
        ((0, 5), 1, 0.0, False),
    ],
)
def test_what_random_directions_are_worth(shape: tuple[int, ...], rank: int, min_saving: float, expected: bool) -> None:
    """One factor travels: r n min_saving < n m."""
    for kind in (RandomLowRank, UnbiasedLowRank):
        assert kind(rank, min_saving=min_saving).compresses(Spec(shape)) is expected


# --- GradiVeQ ---

STEPS = 9


@WORLDS
@pytest.mark.parametrize(
    ("length", "dims", "period", "collect"), [(8, 3, 4, 1), (6, 4, 5, 2), (4, 1, 3, 3), (5, 5, 2, 1), (7, 2, 100, 2)]
)
def test_gradiveq_is_the_papers(world: int, length: int, dims: int, period: int, collect: int) -> None:
    """Dense steps, then projections on what they taught, for a size that is no multiple of the slice."""
    gradients = [[normal((9, 11), step, worker) for worker in range(world)] for step in range(STEPS)]
    expected = gradiveq([average(own) for own in gradients], length, dims, period, collect)
    method = GradiVeQ(length, dims, period, collect, min_saving=0.0)
    simulator = Simulator(method, world, allow_larger=True)
    for own, update in zip(gradients, expected, strict=True):
        assert_close(simulator.step([{"w": x} for x in own])[0]["w"], update, 1e-8)


def test_gradiveq_on_every_library(library: Library) -> None:
    gradients = [normal((9, 11), step) for step in range(STEPS)]
    expected = gradiveq(gradients, 8, 3, 4, 2)
    for dtype, allowed in (("float64", 1e-9), ("float32", 1e-4)):
        simulator = Simulator(GradiVeQ(8, 3, 4, 2), 1, allow_larger=True)
        for gradient, update in zip(gradients, expected, strict=True):
            assert_close(simulator.step([{"w": library.array(gradient, dtype)}])[0]["w"], update, allowed)


def test_the_basis_is_of_the_leading_axes() -> None:
    """Slices that lie in D directions are sent whole from the first projection on; others are not."""
    axes = np.linalg.qr(normal((8, 2)))[0]
    simulator = Simulator(GradiVeQ(8, 2, period=50, collect=1), 1, allow_larger=True)
    for step in range(5):
        gradient = (normal((12, 2), step) @ axes.T).reshape(12, 8)
        assert_close(simulator.step([{"w": gradient}])[0]["w"], gradient, 1e-9)
    odd = normal((12, 8))
    lost = np.sum((odd - simulator.step([{"w": odd}])[0]["w"]) ** 2)
    assert lost == pytest.approx(np.sum(odd**2) - np.sum((odd @ axes) ** 2))


def test_all_dims_are_an_average(world_size: int) -> None:
    simulator = Simulator(GradiVeQ(8, 8, 4, 1, min_saving=0.0), world_size, allow_larger=True)
    for step in range(6):
        parts = [normal((7, 9), step, worker) for worker in range(world_size)]
        assert_close(simulator.step([{"w": part} for part in parts])[0]["w"], average(parts), 1e-12)


def test_what_gradiveq_sends() -> None:
    """The plain average's bytes at dense steps, ceil(d/K) D numbers at others."""
    method, spec = GradiVeQ(10, 3, period=4, collect=2), Spec((9, 7))
    sent = [method.wire_bytes(spec, 2, step) for step in range(8)]
    assert sent == [4 * 63, 4 * 63, 4 * 7 * 3, 4 * 7 * 3] * 2
    assert Spec((9, 7)).size == 63


def test_the_state_is_equal_on_all_ranks() -> None:
    simulator = Simulator(GradiVeQ(8, 3, 4, 2, error_feedback=True), 3, allow_larger=True)
    for step in range(4):
        simulator.step([{"w": normal((9, 11), step, worker)} for worker in range(3)])
        first, *others = [state["units"]["w"]["leaves"] for state in simulator.state_dicts()]
        for leaf, other in itertools.product(("inner.covariance", "inner.basis"), others):
            assert bits(first[leaf]) == bits(other[leaf])
        basis = wide(first["inner.basis"])
        assert_close(basis @ basis.T, np.eye(3), 1e-12)


@pytest.mark.parametrize("bad", [0, 1])
def test_a_dense_step_that_is_not_finite_teaches_nothing(bad: int) -> None:
    """The basis is that of the other dense steps alone, whichever it was."""
    method = GradiVeQ(8, 3, period=6, collect=2)
    spoilt, without = (Simulator(method, 2, allow_larger=True) for _ in range(2))
    for step in range(5):
        parts = [normal((9, 11), step, worker) for worker in range(2)]
        zeros = [np.zeros((9, 11))] * 2
        expected = without.step([{"w": x} for x in (zeros if step == bad else parts)])[0]["w"]
        if step == bad:
            parts[0][2, 3] = np.inf
        with np.errstate(all="ignore"):
            mean = spoilt.step([{"w": x} for x in parts])[0]["w"]
        assert step == bad or bits(mean) == bits(expected)


def test_zeros_leave_the_basis_alone() -> None:
    """A period that starts with nothing but zeros keeps the axes of the one before."""
    simulator = Simulator(GradiVeQ(8, 3, period=3, collect=1), 1, allow_larger=True)
    gradient = with_values(11, 8, [5.0, 4.0, 3.0])
    for step in range(6):
        zero = step % 3 == 0 and step > 0
        mean = simulator.step([{"w": np.zeros((11, 8)) if zero else gradient}])[0]["w"]
        assert_close(mean, np.zeros((11, 8)) if zero else gradient, 1e-9, scale=5.0)


def test_before_the_first_basis_random_axes_do() -> None:
    """A start in the middle of a period, as after a warm-up, sends a share of the gradient and never more than it."""
    simulator = Simulator(Warmup(2, GradiVeQ(8, 3, period=4, collect=1)), 1, allow_larger=True)
    for step in range(4):
        gradient = normal((11, 8), step)
        mean = wide(simulator.step([{"w": gradient}])[0]["w"])
        kept, whole = float(np.sum(mean**2)), float(np.sum(gradient**2))
        assert kept == pytest.approx(float(np.sum(mean * gradient)))
        assert kept == pytest.approx(whole) if step < 2 else 0.05 * whole < kept < 0.8 * whole


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_squares_of_gradients_stay_in_range(library: Library, scale: float) -> None:
    simulator = Simulator(GradiVeQ(8, 3, period=5, collect=1), 1, allow_larger=True)
    gradients = [normal((11, 8), step) for step in range(3)]
    expected = gradiveq(gradients, 8, 3, 5, 1)
    for gradient, update in zip(gradients, expected, strict=True):
        mean = simulator.step([{"w": library.array(gradient * scale)}])[0]["w"]
        assert_close(wide(mean) / scale, update, 1e-4)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"slice_length": 0}, "slice_length=0"),
        ({"dims": 513}, "dims=513"),
        ({"dims": 0}, "dims=0"),
        ({"collect": 501}, "collect=501"),
        ({"collect": 0}, "collect=0"),
        ({"period": 0}, "period=0"),
        ({"min_saving": -1.0}, "min_saving=-1.0"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], named: str) -> None:
    for kind in (SliceProjection, GradiVeQ):
        with pytest.raises(ConfigurationError, match=named):
            kind(**settings)


@pytest.mark.parametrize("kind", [Atomo, Spectral, RandomLowRank, UnbiasedLowRank])
def test_a_rank_is_at_least_one(kind: type) -> None:
    with pytest.raises(ConfigurationError, match="rank=0"):
        kind(rank=0)


# --- what they share ---


@pytest.mark.parametrize("shape", [(), (1,), (5,), (1, 1), (3, 1), (1, 4), (2, 3, 2)], ids=str)
@pytest.mark.parametrize(
    "operator", [AllGather(Spectral(2)), RandomLowRank(2), SliceProjection(4, 2, period=2, collect=1)], ids=repr
)
def test_any_shape_with_more_workers_than_elements(operator: Operator, shape: tuple[int, ...]) -> None:
    """Called directly, whether it is worth it or not: shape kept, finite, equal on all ranks, zeros for zeros."""
    spec, world = Spec(shape, "float64"), 7
    for zero in (False, True):
        states = [initial_state(operator.leaves(spec, world), OPS, "w") for _ in range(world)]
        for step in range(2):
            parts = [np.zeros(shape) if zero else np.asarray(normal(shape, step, rank)) for rank in range(world)]
            outcomes, _ = lockstep(
                [
                    operator.exchange(part, state, Context(OPS, spec, "w", step, rank, world, feedback=True))
                    for rank, (part, state) in enumerate(zip(parts, states, strict=True))
                ]
            )
            states = [outcome.state for outcome in outcomes]
            assert {bits(outcome.mean) for outcome in outcomes} == {bits(outcomes[0].mean)}
            assert wide(outcomes[0].mean).shape == shape
            assert np.isfinite(wide(outcomes[0].mean)).all()
            assert not zero or not np.any(wide(outcomes[0].mean))


def test_running_sums(library: Library) -> None:
    for dtype in ("float32", "float64"):
        x = library.array([1.0, -2.0, 0.5], dtype)
        sums = ops_of(x).cumsum(x)
        assert (wide(sums).tolist(), ops_of(x).dtype(sums)) == ([1.0, -1.0, -0.5], dtype)
