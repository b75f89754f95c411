"""What makes it power iteration: spans, projections, exactness, convergence; and where others went wrong."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from cases import NUMPY, Library, assert_close, bits, wide
from hypothesis import given
from hypothesis import strategies as st
from oracles.averaging import average
from oracles.low_rank import best_rank, best_rank_error, project_columns

from hvd_compress import AlternatingLowRank, BestLowRank, LowRank, Operator, PowerSGD, Simulator, Spec

sizes = st.integers(1, 9)
seeds = st.integers(0, 999)


def normal(shape: tuple[int, ...], *seed: int) -> np.ndarray:
    return np.random.default_rng([3, *seed]).standard_normal(shape)


def of_rank(n: int, m: int, rank: int, seed: int = 0) -> np.ndarray:
    return normal((n, rank), seed) @ normal((rank, m), seed, 1)


def once(operator: Operator, matrix: np.ndarray, steps: int = 1, dtype: str = "float64") -> np.ndarray:
    """Return the last mean of so many steps with one worker and a constant gradient."""
    simulator = Simulator(operator, 1, allow_larger=True)
    for _ in range(steps):
        means = simulator.step([{"w": matrix.astype(dtype)}])
    return wide(means[0]["w"])


@given(n=sizes, m=sizes, rank=st.integers(1, 5), world=st.integers(1, 5), seed=seeds)
def test_linear_for_any_split_of_the_mean(n: int, m: int, rank: int, world: int, seed: int) -> None:
    """Whatever adds up to the same mean gives the same update, at every step: 7e-16 in the paper's terms."""
    for method in (LowRank(rank, min_saving=0.0), PowerSGD(rank, min_saving=0.0), PowerSGD(rank, alternate=True)):
        many, one = Simulator(method, world, allow_larger=True), Simulator(method, 1, allow_larger=True)
        for step in range(3):
            parts = [100.0 * normal((n, m), seed, step, rank) for rank in range(world - 1)]
            mean = normal((n, m), seed, step)
            parts.append(world * mean - sum(parts) if parts else mean)
            split = many.step([{"w": part} for part in parts])[0]["w"]
            assert_close(split, one.step([{"w": mean}])[0]["w"], 1e-7, scale=1.0)


@given(n=sizes, m=sizes, rank=st.integers(1, 5), iterations=st.integers(1, 2), seed=seeds)
def test_the_update_is_a_projection_of_the_mean(n: int, m: int, rank: int, iterations: int, seed: int) -> None:
    """mean = P P^T M: of rank r, onto its own columns, so ||M - out||^2 + ||out||^2 = ||M||^2; never beats SVD."""
    matrix = normal((n, m), seed)
    operator = LowRank(rank, power_iterations=iterations, min_saving=0.0, seed=seed)
    for steps in (1, 3):
        out = once(operator, matrix, steps)
        assert np.linalg.matrix_rank(out, tol=1e-9) <= rank
        assert_close(project_columns(matrix, out), out, 1e-9, scale=10.0)
        lost, kept, whole = (float(np.sum(x**2)) for x in (matrix - out, out, matrix))
        assert lost + kept == pytest.approx(whole)
        assert lost >= best_rank_error(matrix, rank) - 1e-9 * whole


@given(n=sizes, m=sizes, rank=st.integers(1, 4), seed=seeds)
def test_exact_where_the_rank_suffices(n: int, m: int, rank: int, seed: int) -> None:
    """Also where the matrix has less rank than the factors, and where it is not square."""
    for true_rank in range(rank + 1):
        matrix = of_rank(n, m, true_rank, seed)
        for operator in (LowRank(rank, min_saving=0.0), BestLowRank(rank, min_saving=0.0)):
            assert_close(once(operator, matrix), matrix, 1e-8, scale=10.0)
            assert_close(once(operator, matrix, steps=3), matrix, 1e-8, scale=10.0)


@pytest.mark.parametrize("library", [NUMPY, Library("torch")], ids=lambda lib: lib.name)
def test_rank_one_with_four_columns(library: Library) -> None:
    """Where Gram-Schmidt with an additive constant is off by more than the matrix itself, QR is exact."""
    matrix = np.outer(normal((20,)), normal((15,), 1))
    simulator = Simulator(PowerSGD(rank=4, min_saving=0.0), 1, allow_larger=True)
    for _ in range(5):
        mean = simulator.step([{"w": library.array(matrix)}])[0]["w"]
        assert_close(mean, matrix, 1e-5)


@given(n=sizes, m=sizes, rank=st.integers(1, 4), seed=seeds)
def test_the_best_is_eckart_and_youngs(n: int, m: int, rank: int, seed: int) -> None:
    parts = [normal((n, m), seed, i) for i in range(3)]
    simulator = Simulator(BestLowRank(rank, min_saving=0.0), 3, allow_larger=True)
    out = simulator.step([{"w": part} for part in parts])[0]["w"]
    assert_close(out, best_rank(average(parts), rank), 1e-8, scale=4.0)


@pytest.mark.parametrize("operator", [LowRank(2, min_saving=0.0), AlternatingLowRank(2, min_saving=0.0)], ids=repr)
def test_warm_start_converges_to_the_best(operator: Operator) -> None:
    """With a constant gradient the error never increases, and reaches that of the SVD."""
    u, v = (np.linalg.qr(normal((size, 6), size))[0] for size in (14, 10))
    matrix = (u * [9.0, 8.0, 3.0, 2.0, 1.0, 0.5]) @ v.T
    simulator = Simulator(operator, 1, allow_larger=True)
    errors = [float(np.sum((matrix - simulator.step([{"w": matrix}])[0]["w"]) ** 2)) for _ in range(30)]
    assert all(later <= earlier + 1e-9 for earlier, later in itertools.pairwise(errors))
    assert errors[0] > 1.05 * best_rank_error(matrix, 2)
    assert errors[-1] == pytest.approx(best_rank_error(matrix, 2), rel=1e-6)


def test_a_cold_start_does_not_converge() -> None:
    matrix = normal((14, 10))
    fresh, same = (LowRank(2, warm_start=False, resample=resample, min_saving=0.0) for resample in (True, False))
    assert np.array_equal(once(same, matrix, 1), once(same, matrix, 2))
    assert not np.allclose(once(fresh, matrix, 1), once(fresh, matrix, 2))
    best = best_rank_error(matrix, 2)
    for operator in (fresh, same):
        assert np.sum((matrix - once(operator, matrix, 20)) ** 2) > 1.02 * best


def test_more_power_iterations_come_closer() -> None:
    """k iterations in one step are k steps with warm start."""
    matrix = normal((14, 10))
    for iterations in (1, 2, 5):
        several = once(LowRank(2, power_iterations=iterations, min_saving=0.0), matrix)
        assert_close(several, once(LowRank(2, min_saving=0.0), matrix, steps=iterations), 1e-9)


@pytest.mark.parametrize("path", ["q", "inner.q"])
def test_only_the_span_of_q_matters(path: str) -> None:
    """Q and Q R, for any invertible R, give the same updates from there on."""
    method = LowRank(3, min_saving=0.0) if path == "q" else PowerSGD(3, min_saving=0.0)
    plain, mixed = Simulator(method, 2, allow_larger=True), Simulator(method, 2, allow_larger=True)
    for step in range(3):
        plain.step([{"w": normal((12, 9), step, rank)} for rank in range(2)])
    saved = plain.state_dicts()
    for own in saved:
        leaves = own["units"]["w"]["leaves"]
        leaves[path] = np.array([[2.0, 1.0, 0.0], [0.0, -3.0, 0.5], [1.0, 0.0, 100.0]]) @ leaves[path]
    gradients = [{"w": normal((12, 9), 3, rank)} for rank in range(2)]
    mixed.load_state_dicts(saved, gradients)
    for _ in range(3):
        assert_close(mixed.step(gradients)[0]["w"], plain.step(gradients)[0]["w"], 1e-10)


def test_layers_of_equal_shape_get_their_own_answers() -> None:
    """Batched orthogonalisation over all of them at once would recover 1/K of each."""
    simulator = Simulator(LowRank(1, min_saving=0.0), 1, allow_larger=True)
    layers = {f"layer{i}": of_rank(8, 6, 1, seed=i) for i in range(5)}
    means = simulator.step([layers])[0]
    for name, matrix in layers.items():
        assert_close(means[name], matrix, 1e-9)


def test_layers_of_equal_shape_start_from_their_own_q() -> None:
    simulator = Simulator(LowRank(2, min_saving=0.0), 1, allow_larger=True)
    matrix = normal((8, 6))
    means = simulator.step([{"a": matrix, "b": matrix}])[0]
    assert not np.allclose(means["a"], means["b"])


def test_seeds_give_different_subspaces() -> None:
    matrix = normal((8, 6))
    for kind in (LowRank, AlternatingLowRank, PowerSGD):
        first, second = (once(kind(rank=2, min_saving=0.0, seed=seed), matrix) for seed in (0, 1))
        assert not np.allclose(first, second)


@pytest.mark.parametrize("method", [LowRank(2, min_saving=0.0), PowerSGD(2, min_saving=0.0)], ids=repr)
def test_a_layer_that_was_zero_is_as_good_as_new(method: Operator) -> None:
    """A zero gradient leaves no Q; it is drawn anew, so the next step is not worse than a first one."""
    simulator = Simulator(method, 1, allow_larger=True)
    matrix = normal((12, 9))
    for _ in range(2):
        assert not simulator.step([{"w": np.zeros((12, 9))}])[0]["w"].any()
    after = simulator.step([{"w": matrix}])[0]["w"]
    fresh_errors = [np.sum((matrix - once(LowRank(2, min_saving=0.0, seed=s), matrix)) ** 2) for s in range(20)]
    assert np.sum((matrix - after) ** 2) <= 1.1 * max(fresh_errors)
    # Unit vectors, the leftovers of orthogonalising zero, would merely copy rows.
    assert not any(np.allclose(after[i], matrix[i]) for i in range(12))


@pytest.mark.parametrize(
    ("shape", "rank", "min_saving", "expected"),
    [
        ((12, 9), 4, 1.0, True),  # 84 < 108
        ((12, 9), 4, 1.3, False),  # 109.2
        ((12, 9), 5, 1.0, True),  # 105
        ((12, 9), 6, 1.0, False),  # 126
        ((4, 4), 2, 1.0, False),  # 16 = 16 saves nothing
        ((4, 4), 2, 0.99, True),
        ((1, 9), 1, 1.0, False),
        ((1, 9), 1, 0.0, True),
        ((12,), 1, 0.0, False),
        ((), 1, 0.0, False),
        ((0, 5), 1, 0.0, False),
        ((64, 3, 3, 3), 4, 1.0, True),
    ],
)
def test_what_is_worth_factoring(shape: tuple[int, ...], rank: int, min_saving: float, expected: bool) -> None:
    """(n + m) r min_saving < n m, for matrices and beyond; a low rank is never more than the matrix has."""
    for kind in (LowRank, AlternatingLowRank, BestLowRank, PowerSGD):
        assert kind(rank=rank, min_saving=min_saving).compresses(Spec(shape)) is expected


@pytest.mark.parametrize(
    ("shape", "output_axis", "matrix"),
    [
        ((), 0, (1, 1)),
        ((5,), 0, (5, 1)),
        ((5,), -1, (1, 5)),
        ((64, 3, 7, 7), 0, (64, 147)),
        ((7, 7, 3, 64), -1, (147, 64)),
        ((4, 0), 0, (4, 0)),
    ],
)
def test_how_a_gradient_is_seen_as_a_matrix(shape: tuple[int, ...], output_axis: int, matrix: tuple[int, int]) -> None:
    assert Spec(shape, output_axis=output_axis).matrix_shape == matrix


def test_an_outlier_rank_does_not_poison_the_factors() -> None:
    """A step of zeros on one layer only: the others' factors are as they would have been."""
    both, alone = (
        Simulator(LowRank(2, min_saving=0.0), 1, allow_larger=True),
        Simulator(LowRank(2, min_saving=0.0), 1, allow_larger=True),
    )
    for step in range(4):
        w, v = normal((8, 6), step), np.zeros((8, 6)) if step == 1 else normal((8, 6), step, 1)
        mean = both.step([{"w": w, "v": v}])[0]["w"]
        assert bits(mean) == bits(alone.step([{"w": w}])[0]["w"])


@pytest.mark.parametrize("method", [PowerSGD(2), PowerSGD(2, alternate=True), PowerSGD(2, power_iterations=2)])
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan, 1e38])
@pytest.mark.parametrize("common", [0.0, 1.0])
def test_no_number_that_is_not_finite_stays_in_a_residual(
    library: Library, method: Operator, bad: float, common: float
) -> None:
    """Wherever it was, on whichever worker, and whatever the other numbers are: also where factors are zero."""
    n, m, world = 9, 7, 2
    for step, place in itertools.product((0, 1), [(0, 0), (8, 6), (4, 3), (8, 0)]):
        simulator = Simulator(method, world, allow_larger=True)
        for now in range(step + 1):
            gradients = [np.float32(common * normal((n, m), now, rank)) for rank in range(world)]
            if now == step:
                gradients[1][place] = bad
            with np.errstate(all="ignore"):
                simulator.step([{"w": library.array(gradient, "float32")} for gradient in gradients])
        for worker in simulator.workers:
            assert np.isfinite(wide(worker.memories()["w"])).all(), (step, place)


def test_torch_says_nothing_of_overflow_and_underflow() -> None:
    """A rank that raised in the middle of an exchange would leave the others waiting."""
    for scale, bad in ((1.0, np.inf), (1e-30, 1e-30)):
        for method in (PowerSGD(2), PowerSGD(2, alternate=True)):
            simulator = Simulator(method, 2)
            for step in range(2):
                gradients = [torch.from_numpy(np.float32(scale * normal((64, 48), step, rank))) for rank in range(2)]
                gradients[1][3, 5] = bad
                with np.errstate(all="raise"):
                    simulator.step([{"w": gradient} for gradient in gradients])
