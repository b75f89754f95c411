"""Sketched-SGD is the paper's algorithm: it follows the float64 transcription, option by option."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from cases import NUMPY, Library, assert_close, bits, wide
from oracles.averaging import average
from oracles.collectives import lockstep
from oracles.sketch import Run as Paper
from oracles.sketch import sketched_sgd

from hvd_compress import (
    ConfigurationError,
    CountSketch,
    Half,
    Identity,
    MomentumCorrection,
    Simulator,
    SketchedSGD,
    Spec,
    resolve,
)
from hvd_compress.contract import Context, initial_state
from hvd_compress.ops import ops_of

D, K, STEPS, MU = 400, 10, 8, 0.8
SPEC = Spec((D,), "float64")
WORLDS = pytest.mark.parametrize("world", [1, 2, 3, 4, 5, 7])


def heavy(*key: int) -> np.ndarray:
    return np.random.default_rng([4, *key]).standard_normal(D) ** 7


def gradients(world: int, steps: int = STEPS) -> list[list[np.ndarray]]:
    return [[heavy(step, rank) for rank in range(world)] for step in range(steps)]


class Run:
    """One flat gradient over W workers, with no driver in between."""

    def __init__(self, method: SketchedSGD, world: int, library: Library) -> None:
        self.method, self.world, self.library, self.taken = method, world, library, 0
        self.ops = ops_of(library.array(0.0))
        self.states: list[Any] = [initial_state(method.leaves(SPEC, world), self.ops, "w") for _ in range(world)]

    def step(self, own: list[np.ndarray]) -> np.ndarray:
        exchanges = [
            self.method.exchange(
                self.library.array(g, "float64"), state, Context(self.ops, SPEC, "w", self.taken, rank, self.world)
            )
            for rank, (g, state) in enumerate(zip(own, self.states, strict=True))
        ]
        outcomes, _ = lockstep(exchanges)
        self.states = [outcome.state for outcome in outcomes]
        self.taken += 1
        assert all(bits(outcome.mean) == bits(outcomes[0].mean) for outcome in outcomes)
        return wide(outcomes[0].mean)


def paper(method: SketchedSGD, steps: list[list[np.ndarray]]) -> Paper:
    """Return what the transcription makes of the gradients, with the same hash tables, read off from one-hots."""
    operator = method.expression()
    assert isinstance(operator, MomentumCorrection) and isinstance(operator.inner, CountSketch)
    hashes = operator.inner.hashes(D, ops_of(np.zeros(1)))
    tables = np.stack([hashes.sketch(row) for row in np.eye(D)], axis=2)
    asked = min(method.candidates * K, D)
    return sketched_sgd(
        steps,
        np.abs(tables).argmax(axis=1),
        tables.sum(axis=1),
        hashes.columns,
        K,
        asked,
        method.momentum,
        method.masking,
        method.second_round,
    )


OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "ratio": {"k": None, "ratio": K / D},
    "three-rows": {"rows": 3, "columns": 90},
    "few-candidates": {"candidates": 2, "columns": 150},
    "no-masking": {"masking": False},
    "no-momentum": {"momentum": 0.0},
    "one-round": {"second_round": False, "columns": 390},
    "polynomial": {"hashing": "polynomial", "columns": 120},
    "seed": {"seed": 9},
}


@WORLDS
@pytest.mark.parametrize("option", OPTIONS)
def test_the_paper(world: int, option: str, library: Library) -> None:
    """Updates, and every worker's u and v."""
    method = SketchedSGD(**{"k": K, "momentum": MU, "columns": 100, **OPTIONS[option]})
    steps = gradients(world)
    expected = paper(method, steps)
    run = Run(method, world, library)
    for own, update in zip(steps, expected.updates, strict=True):
        assert_close(run.step(own), update, 1e-10)
    for state, u, v in zip(run.states, expected.u, expected.v, strict=True):
        assert_close(state["momentum"], u, 1e-10)
        assert_close(state["error"], v, 1e-10)


@WORLDS
def test_what_is_kept_and_what_is_sent_is_what_was_owed(world: int, library: Library) -> None:
    """v' + own value at the applied coordinates = v + u, and u is zero there and kept elsewhere."""
    run = Run(SketchedSGD(k=K, columns=100, momentum=MU), world, library)
    for own in gradients(world):
        before = [(wide(state["momentum"]), wide(state["error"])) for state in run.states]
        applied = np.flatnonzero(run.step(own))
        assert len(applied) == K
        for g, (u, v), state in zip(own, before, run.states, strict=True):
            owed = v + MU * u + g
            own_value = np.zeros(D)
            own_value[applied] = owed[applied]
            assert_close(wide(state["error"]) + own_value, owed, 1e-12)
            assert_close(state["momentum"], np.where(own_value != 0.0, 0.0, MU * u + g), 1e-12)


@pytest.mark.parametrize("size", [{"k": D}, {"k": 10 * D}, {"k": D // 8 + 1}], ids=str)
def test_all_coordinates_applied_are_plain_sgd_without_momentum(size: dict[str, int], library: Library) -> None:
    """Exactly, whatever mu is; and P k >= d needs no table, so that the k largest are the true ones."""
    run, steps = Run(SketchedSGD(momentum=0.9, **size), 3, library), gradients(3)
    for own in steps:
        update, mean = run.step(own), average(own)
        if size["k"] >= D:
            assert_close(update, mean, 1e-15)
        elif run.taken == 1:
            chosen = np.argsort(-np.abs(mean))[: size["k"]]
            assert_close(update[chosen], mean[chosen], 1e-12)
            assert np.count_nonzero(update) == size["k"]


def test_biases_are_dense_and_keep_their_momentum(world_size: int) -> None:
    """u is not masked where everything is sent; v is always sent whole."""
    simulator = Simulator(SketchedSGD(momentum=0.5, ratio=0.01), world_size, allow_larger=True)
    ones = [{"bias": np.ones(2000), "weight": np.ones((50, 50))} for _ in range(world_size)]
    for expected in (1.0, 1.5, 1.75, 1.875):
        assert_close(simulator.step(ones)[0]["bias"], np.full(2000, expected), 1e-12)


def test_where_a_sketch_saves_nothing_the_model_keeps_its_momentum() -> None:
    simulator = Simulator(SketchedSGD(k=300, columns=2000, momentum=0.5), 2)
    ones = [{"weight": np.ones((50, 50))}] * 2
    with pytest.warns(UserWarning, match="travel dense"):
        means = [simulator.step(ones)[0]["weight"] for _ in range(3)]
    for mean, expected in zip(means, (1.0, 1.5, 1.75), strict=True):
        assert_close(mean, np.full((50, 50), expected), 1e-12)


def test_every_coordinate_arrives_in_time(library: Library) -> None:
    """A constant gradient, without momentum: what is applied in T steps, over T, tends to it."""
    target = heavy(0)
    run = Run(SketchedSGD(k=40, momentum=0.0), 1, library)
    total = np.sum([run.step([target]) for _ in range(150)], axis=0)
    assert np.linalg.norm(total / 150 - target) < 0.1 * np.linalg.norm(target)


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_half_precision_on_every_wire(world: int) -> None:
    """All payloads are float16; the first update is that of float32, rounded."""
    shapes = {"weight": (60, 50), "bias": (9,)}
    own = [{n: np.random.default_rng([r]).standard_normal(s) ** 5 for n, s in shapes.items()} for r in range(world)]
    wide_run, half_run = (Simulator(SketchedSGD(k=20, half=half, columns=200), world) for half in (False, True))
    exact, rounded = (run.step(NUMPY.arrays(own))[0] for run in (wide_run, half_run))
    for name in shapes:
        assert_close(rounded[name], exact[name], 2e-3 * world)
    assert abs(half_run.plan.wire_bytes(2) - wide_run.plan.wire_bytes(2) / 2) <= 1
    for unit in half_run.plan.units:
        assert {p.dtype for r in unit.operator.traffic(unit.spec, 2, 0) for p in r} == {"float16"}
    for step in range(1, 5):
        means = half_run.step([{n: x * step for n, x in g.items()} for g in NUMPY.arrays(own)])
        assert all(bits(mean["weight"]) == bits(means[0]["weight"]) for mean in means)
        assert np.isfinite(means[0]["weight"]).all()


def test_the_bytes_do_not_depend_on_the_number_of_workers() -> None:
    sent = {}
    for world in (2, 4, 8):
        simulator = Simulator(SketchedSGD(ratio=0.005), world)
        simulator.step([{"weight": heavy(rank).reshape(20, 20).repeat(6, 0).repeat(6, 1)} for rank in range(world)])
        sent[world] = simulator.sent_bytes / (2 * (world - 1) / world)
    assert max(sent.values()) - min(sent.values()) < 1e-3 * max(sent.values())
    assert sent[2] < 0.1 * 8 * 120 * 120


def test_it_is_momentum_correction_around_a_count_sketch() -> None:
    assert SketchedSGD().expression() == MomentumCorrection(CountSketch())
    assert SketchedSGD(half=True, rows=3, masking=False).expression() == MomentumCorrection(
        Half(CountSketch(rows=3)), masking=False
    )
    assert resolve("sketchedsgd:ratio=0.02:half=true") == SketchedSGD(ratio=0.02, half=True)
    assert SketchedSGD().has_momentum and not SketchedSGD(momentum=0.0).has_momentum
    assert not hasattr(SketchedSGD(), "nesterov")


def test_a_warning_where_masking_leaves_no_momentum() -> None:
    with pytest.warns(UserWarning, match="masking=False"):
        SketchedSGD(ratio=0.9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SketchedSGD(ratio=0.9, masking=False)
        SketchedSGD(ratio=0.9, momentum=0.0)
        SketchedSGD(ratio=0.1)


@pytest.mark.parametrize(
    ("name", "value"),
    [("momentum", 1.0), ("momentum", -0.1), ("ratio", 0.0), ("rows", 4), ("k", 0), ("hashing", "md5"), ("seed", -1)],
)
def test_a_wrong_setting_is_named(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{name}={value!r}"):
        SketchedSGD(**{name: value})


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped() -> None:
    own = [NUMPY.arrays([{"weight": heavy(step, rank).reshape(20, 20)} for rank in range(2)]) for step in range(6)]
    whole, first, second = (Simulator(SketchedSGD(k=K, min_size=0), 2) for _ in range(3))
    for step in range(3):
        whole.step(own[step])
        first.step(own[step])
    second.load_state_dicts(first.state_dicts(), own[0])
    for step in range(3, 6):
        assert bits(second.step(own[step])[0]["weight"]) == bits(whole.step(own[step])[0]["weight"])


def test_without_compression_it_is_momentum() -> None:
    """What the wrapper does around a plain average: every step's update is u."""
    simulator = Simulator(MomentumCorrection(Identity(), momentum=0.5), 2)
    for expected in (1.0, 1.5, 1.75):
        assert_close(simulator.step([{"w": np.ones(3)}] * 2)[0]["w"], np.full(3, expected), 1e-15)
