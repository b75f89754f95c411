"""PowerSGD is the paper's algorithm: it follows the float64 transcription, option by option."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import NUMPY, Library, assert_close, normal_gradients, wide
from oracles.averaging import average
from oracles.collectives import lockstep
from oracles.feedback import with_feedback
from oracles.low_rank import best_rank
from oracles.powersgd import AlternatingPowerSGD
from oracles.powersgd import PowerSGD as Paper

from hvd_compress import BestLowRank, ErrorFeedback, LowRank, Operator, PowerSGD, Simulator, Spec
from hvd_compress.contract import Context, initial_state
from hvd_compress.ops import ops_of

N, M, RANK, STEPS = 11, 7, 2, 7
OPS = ops_of(np.zeros(1))
Q = np.random.default_rng(5).standard_normal((M, RANK))


def matrices(world: int, step: int, shape: tuple[int, ...] = (N, M)) -> list[np.ndarray]:
    return [np.random.default_rng([9, step, rank]).standard_normal(shape) for rank in range(world)]


class Run:
    """One matrix over W workers, from a given Q, with no driver in between."""

    def __init__(self, operator: Operator, world: int, q: np.ndarray | None = Q, spec: Spec | None = None) -> None:
        self.operator, self.world, self.taken = operator, world, 0
        self.spec = spec or Spec((N, M), "float64")
        self.states = [initial_state(operator.leaves(self.spec, world), OPS, "w") for _ in range(world)]
        for state in self.states:
            if q is not None:
                _innermost(state)["q" if "q" in _innermost(state) else "q_start"] = q.T.copy()

    def step(self, gradients: list[np.ndarray]) -> np.ndarray:
        outcomes, _ = lockstep(
            [
                self.operator.exchange(g.copy(), state, Context(OPS, self.spec, "w", self.taken, rank, self.world))
                for rank, (g, state) in enumerate(zip(gradients, self.states, strict=True))
            ]
        )
        self.states = [outcome.state for outcome in outcomes]
        self.taken += 1
        return np.asarray(outcomes[0].mean)

    @property
    def residuals(self) -> list[np.ndarray]:
        return [state["error"] for state in self.states]


def _innermost(state: dict[str, Any]) -> dict[str, Any]:
    return _innermost(state["inner"]) if "inner" in state else state


def follow(run: Run, paper: Paper | AlternatingPowerSGD, feedback: bool = True) -> None:
    """Check update and residuals of every step against the transcription."""
    for step in range(STEPS):
        gradients = matrices(run.world, step)
        assert_close(run.step(gradients), paper.step(gradients), 1e-10)
        if feedback:
            for mine, theirs in zip(run.residuals, paper.residuals, strict=True):
                assert_close(mine, theirs, 1e-10)


def test_the_paper(world_size: int) -> None:
    follow(Run(PowerSGD(rank=RANK, min_saving=0.0), world_size), Paper(Q))


def test_several_power_iterations(world_size: int) -> None:
    run = Run(PowerSGD(rank=RANK, power_iterations=3, min_saving=0.0), world_size)
    follow(run, Paper(Q, power_iterations=3))


def test_without_error_feedback(world_size: int) -> None:
    run = Run(PowerSGD(rank=RANK, error_feedback=False, min_saving=0.0), world_size)
    follow(run, Paper(Q, feedback=False), feedback=False)


def test_cold_start_from_the_same_q(world_size: int) -> None:
    run = Run(PowerSGD(rank=RANK, warm_start=False, resample=False, min_saving=0.0), world_size)
    follow(run, Paper(Q, warm_start=False))


def first_factor(operator: Operator, step: int) -> np.ndarray:
    """Return the Q that an operator starts a step with: what it asks to be averaged for the gradient I."""
    spec = Spec((M, M), "float64")
    state = initial_state(operator.leaves(spec, 1), OPS, "w")
    (request,) = next(operator.exchange(np.eye(M), state, Context(OPS, spec, "w", step, 0, 1)))
    return np.array(request.array).T


def test_cold_start_from_a_fresh_q(world_size: int) -> None:
    def fresh(step: int) -> np.ndarray:
        return first_factor(LowRank(rank=RANK, warm_start=False, min_saving=0.0), step)

    assert not np.allclose(fresh(0), fresh(1))
    assert np.array_equal(fresh(1), fresh(1))
    run = Run(PowerSGD(rank=RANK, warm_start=False, min_saving=0.0), world_size)
    follow(run, Paper(Q, warm_start=False, fresh=fresh))


def test_alternating(world_size: int) -> None:
    follow(Run(PowerSGD(rank=RANK, alternate=True, min_saving=0.0), world_size), AlternatingPowerSGD(Q))


def test_alternating_without_feedback(world_size: int) -> None:
    run = Run(PowerSGD(rank=RANK, alternate=True, error_feedback=False, min_saving=0.0), world_size)
    follow(run, AlternatingPowerSGD(Q, feedback=False), feedback=False)


def test_rank_beyond_the_matrix_is_the_matrix_s() -> None:
    q = np.random.default_rng(1).standard_normal((M, M))
    follow(Run(PowerSGD(rank=50, min_saving=0.0), 2, q), Paper(q))


def test_start_after_travels_dense_first() -> None:
    """Averages for so many steps; then the paper's algorithm from an empty residual and the first Q."""
    run, paper = Run(PowerSGD(rank=RANK, start_after=3, min_saving=0.0), 3), Paper(Q)
    for step in range(STEPS):
        gradients = matrices(3, step)
        expected = average(gradients) if step < 3 else paper.step(gradients)
        assert_close(run.step(gradients), expected, 1e-10)


def test_a_convolution_is_out_by_the_rest() -> None:
    run, paper = Run(PowerSGD(rank=RANK, min_saving=0.0), 2, q_of(18), Spec((5, 2, 3, 3), "float64")), Paper(q_of(18))
    for step in range(STEPS):
        gradients = matrices(2, step, (5, 2, 3, 3))
        expected = paper.step([g.reshape(5, 18) for g in gradients])
        assert_close(run.step(gradients), expected.reshape(5, 2, 3, 3), 1e-10)


def test_a_tensorflow_kernel_is_the_rest_by_out() -> None:
    """h x w x in x out: rows are (h, w, in), columns are output features."""
    spec = Spec((3, 3, 2, 5), "float64", output_axis=-1)
    assert spec.matrix_shape == (18, 5)
    run, paper = Run(PowerSGD(rank=RANK, min_saving=0.0), 2, q_of(5), spec), Paper(q_of(5))
    for step in range(STEPS):
        gradients = matrices(2, step, spec.shape)
        expected = paper.step([g.reshape(18, 5) for g in gradients])
        assert_close(run.step(gradients), expected.reshape(spec.shape), 1e-10)


def q_of(m: int) -> np.ndarray:
    return np.random.default_rng(m).standard_normal((m, RANK))


def test_local_and_global_residuals_give_the_same_updates() -> None:
    """The residual from the worker's own p^T P and that from the averaged one differ, the updates do not."""
    run, paper = Run(PowerSGD(rank=RANK, min_saving=0.0), 3), Paper(Q, global_residual=True)
    for step in range(30):
        gradients = matrices(3, step)
        assert_close(run.step(gradients), paper.step(gradients), 1e-9)
    assert not np.allclose(run.residuals[0], paper.residuals[0])
    assert_close(average(run.residuals), average(paper.residuals), 1e-9)


def test_a_local_residual_does_not_walk_away() -> None:
    """Its norm plateaus for gradients of equal size, where the global form's is a random walk."""
    run, paper = Run(PowerSGD(rank=RANK, min_saving=0.0), 2), Paper(Q, global_residual=True)
    norms = []
    for step in range(400):
        gradients = matrices(2, step)
        run.step(gradients)
        paper.step(gradients)
        norms.append(np.linalg.norm(run.residuals[0]))
    assert np.mean(norms[300:]) < 1.2 * np.mean(norms[100:200])
    assert np.linalg.norm(paper.residuals[0]) > 1.5 * norms[-1]


def test_it_is_error_feedback_around_low_rank() -> None:
    assert PowerSGD(rank=3, seed=2).expression() == ErrorFeedback(LowRank(rank=3, seed=2))
    steps = [NUMPY.arrays([{"w": x} for x in matrices(2, step)]) for step in range(4)]
    named = Simulator(PowerSGD(rank=3, min_saving=0.0), 2)
    spelled = Simulator(ErrorFeedback(LowRank(rank=3, min_saving=0.0)), 2)
    for gradients in steps:
        assert np.array_equal(named.step(gradients)[0]["w"], spelled.step(gradients)[0]["w"])


def test_feedback_sends_everything_in_time() -> None:
    """A constant gradient is applied in full on average: sum of updates / T -> gradient, at rate 1/T."""
    gradient = matrices(1, 0)
    run = Run(PowerSGD(rank=1, min_saving=0.0), 1, q_of(M)[:, :1])
    total = sum(run.step(gradient) for _ in range(200))
    assert np.linalg.norm(total / 200 - gradient[0]) < 0.1 * np.linalg.norm(gradient[0])
    without = Run(PowerSGD(rank=1, error_feedback=False, min_saving=0.0), 1, q_of(M)[:, :1])
    total = sum(without.step(gradient) for _ in range(200))
    assert np.linalg.norm(total / 200 - gradient[0]) > 0.5 * np.linalg.norm(gradient[0])


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (0.1, 1.0), (1.0, 0.9), (0.3, 0.6), (0.5, 0.5), (0.0, 0.0), (1, 0)])
@pytest.mark.parametrize("world", [1, 3])
def test_the_residual_family(a: float, b: float, world: int) -> None:
    """p = g + a h; s = C(p); h <- b h + (g - s), around the best rank-2 approximation of the mean."""

    def compress(step: int, corrected: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        u = np.linalg.svd(average(corrected))[0][:, :2]
        return best_rank(average(corrected), 2), [u @ u.T @ p for p in corrected]

    gradients = [matrices(world, step) for step in range(STEPS)]
    updates, memories = with_feedback(compress, gradients, a, b)
    run = Run(ErrorFeedback(BestLowRank(rank=2, min_saving=0.0), a=a, b=b), world, q=None)
    for own, expected in zip(gradients, updates, strict=True):
        assert_close(run.step(own), expected, 1e-9)
    for mine, theirs in zip(run.residuals, memories, strict=True):
        assert_close(wide(mine), theirs, 1e-9)


# --- what others got wrong ---

LAYERS = {f"layer{i}": (12, 9) for i in range(4)}


def test_what_it_sends(world_size: int) -> None:
    """Per step r (n + m) for every matrix and d for every vector, in two collectives; in one with `alternate`."""
    shapes = {**LAYERS, "conv": (8, 3, 3, 3), "bias": (7,), "scale": ()}
    numbers = 4 * 2 * (12 + 9) + 2 * (8 + 27) + 7 + 1
    for alternate, steps, collectives in ((False, 1, 2), (True, 2, 2)):
        simulator = Simulator(PowerSGD(rank=2, alternate=alternate), world_size)
        for step in range(steps):
            simulator.step(NUMPY.arrays(normal_gradients(world_size, step, shapes)))
        dense_again = (steps - 1) * (7 + 1)
        handed_in = 4 * (numbers + dense_again)
        assert simulator.sent_bytes == pytest.approx(2 * (world_size - 1) / world_size * handed_in, abs=14 * steps)
        assert simulator.workers[0].meter.collectives == collectives


@pytest.mark.parametrize("alternate", [False, True])
def test_a_scalar_parameter_travels_dense(library: Library, alternate: bool) -> None:
    simulator = Simulator(PowerSGD(alternate=alternate), 3)
    for step in range(2):
        values = [float(step + rank) for rank in range(3)]
        means = simulator.step([{"scale": library.array(value)} for value in values])
        assert [wide(own["scale"]).tolist() for own in means] == [pytest.approx(np.mean(values))] * 3


@pytest.mark.parametrize("alternate", [False, True])
def test_a_layer_without_gradient_is_zero_and_disturbs_no_twin(library: Library, alternate: bool) -> None:
    """At the default settings, for ever or for a while: no NaN, and it is sent once it has a gradient."""
    simulator = Simulator(PowerSGD(alternate=alternate), 2)
    shapes = {"live": (24, 20), "frozen": (24, 20)}
    for step in range(6):
        gradients = normal_gradients(2, step, shapes)
        if step < 4:
            for own in gradients:
                own["frozen"] = np.zeros((24, 20))
        mean = simulator.step(library.arrays(gradients))[0]
        assert np.isfinite(wide(mean["live"])).all()
        assert np.any(wide(mean["frozen"])) == (step >= 4)


@pytest.mark.parametrize("alternate", [False, True])
def test_rank_one_of_layers_that_share_a_shape(library: Library, alternate: bool) -> None:
    """Each recovers its own outer product whole, not the 1/K of it that a norm over all K layers leaves."""
    gradients = {name: np.outer(np.arange(1.0, 13.0) + i, np.ones(9)) for i, name in enumerate(LAYERS)}
    simulator = Simulator(PowerSGD(rank=1, alternate=alternate, error_feedback=False), 1)
    for _ in range(2):
        means = simulator.step(library.arrays([gradients]))[0]
    for name, gradient in gradients.items():
        assert_close(means[name], gradient, 1e-5)


@pytest.mark.parametrize("alternate", [False, True])
def test_several_buckets_are_one(library: Library, alternate: bool) -> None:
    """State is kept by name: however layers are put in buckets, they get the same updates and residuals."""
    method = PowerSGD(rank=2, alternate=alternate)
    shapes = {**LAYERS, "bias": (7,)}
    simulators = [Simulator(method, 2, bucket_bytes=size) for size in (float("inf"), 900, 1)]
    for step in range(4):
        gradients = library.arrays(normal_gradients(2, step, shapes))
        expected, *others = [simulator.step(gradients)[0] for simulator in simulators]
        for mean in others:
            for name in shapes:
                assert_close(mean[name], wide(expected[name]), 1e-5, scale=4.0)
    one, several, all_of_them = (len(simulator.plan.buckets) for simulator in simulators)
    assert one == 1 < several < all_of_them == len(shapes)
    first, second = (simulator.state_dicts()[1]["units"]["layer3"]["leaves"] for simulator in simulators[::2])
    assert first.keys() == second.keys()
    for leaf, value in first.items():
        assert_close(second[leaf], wide(value), 1e-4, scale=4.0)
