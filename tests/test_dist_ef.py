"""dist-EF-SGD and its variants are the paper's: what feedback keeps back is owed exactly, at every step size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from cases import NUMPY, Library, assert_close, bits, normal_gradients, wide
from hypothesis import given
from hypothesis import strategies as st
from oracles.averaging import average
from oracles.dist_ef import (
    Run,
    block_sign,
    decay,
    dist_ef,
    nesterov_sgd,
    pieces,
    shard_blocks,
    virtual_iterate,
)

from hvd_compress import (
    BlockSign,
    Cast,
    Codec,
    ConfigurationError,
    DistEFBlockSGD,
    DistEFBlockSGDM,
    DistEFSGD,
    DistEFSGDM,
    EFSignSGD,
    Identity,
    OneBit,
    Operator,
    Scaled,
    Simulator,
    Spec,
    StepSizeScaling,
)
from hvd_compress.contract import walk
from hvd_compress.methods import Method

VARIANTS: tuple[type[Method], ...] = (DistEFSGD, DistEFSGDM, DistEFBlockSGD, DistEFBlockSGDM)
SHAPES = {"a": (5, 3), "b": (7,), "c": (), "d": (2, 2, 2)}
SIZE = 31
WORLDS = (1, 2, 3, 4, 5, 7)
# From 0 up, at 0 once more, down by ten, at 0, and by ten again.
RATES = [0.0, 0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.1, 0.0, 0.1, *[0.1] * 10, *[0.01] * 5, 0.0, *[0.01] * 3, 0.001, 0.001]


def gradients_of(world: int, steps: int, shapes: dict[str, tuple[int, ...]] = SHAPES) -> list[list[dict[str, Any]]]:
    return [normal_gradients(world, step, shapes) for step in range(steps)]


def flat(model: dict[str, Any]) -> np.ndarray:
    return np.concatenate([wide(x).ravel() for x in model.values()])


def run(
    compressor: Operator, gradients: Sequence[list[dict[str, Any]]], rates: Sequence[float], library: Library = NUMPY
) -> tuple[list[np.ndarray], Simulator]:
    """Return every step's update, flat, and the workers after the last one."""
    simulator = Simulator(compressor, len(gradients[0]), allow_larger=True)
    updates = []
    for own, rate in zip(gradients, rates, strict=True):
        simulator.learning_rate = rate
        updates.append(flat(simulator.step(library.arrays(own, "float64"))[-1]))
    return updates, simulator


def errors_of(simulator: Simulator) -> list[np.ndarray]:
    """Return every worker's residual, flat, in the order of parameters."""
    found = []
    for state in simulator.state_dicts():
        named: dict[str, Any] = {}
        for unit, own in state["units"].items():
            error = _leaf(own["leaves"], "error")
            named.update(error if isinstance(error, dict) else {unit: error})
        found.append(flat({name: named[name] for name in SHAPES if name in named} or named))
    return found


def server_of(simulator: Simulator) -> np.ndarray:
    """Return the server's residual, flat, put together from the shards of every rank."""
    states = simulator.state_dicts()
    whole = []
    for unit in simulator.plan.units:
        shards = [wide(_leaf(state["units"][unit.name]["leaves"], "server")) for state in states]
        whole.append(np.concatenate(shards)[: unit.spec.size])
    return np.concatenate(whole)


def _leaf(leaves: dict[str, Any], name: str) -> Any:
    (found,) = [leaf for path, leaf in leaves.items() if path.split(".")[-1] == name]
    return found


def tensor_blocks() -> list[tuple[int, int]]:
    ends = np.cumsum([math.prod(shape) for shape in SHAPES.values()])
    return [(int(end) - math.prod(shape), int(end)) for end, shape in zip(ends, SHAPES.values(), strict=True)]


def scale_blocks(world: int, units: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return what has a scale of its own: every shard of every unit."""
    return [(start + a, start + b) for start, end in units for a, b in shard_blocks(end - start, world) if a < b]


def follow(found: tuple[list[np.ndarray], Simulator], paper: Run, rates: Sequence[float]) -> None:
    """Check updates where they are applied, and the residuals after the last step."""
    updates, simulator = found
    for update, expected, rate in zip(updates, paper.updates, rates, strict=True):
        if rate:
            assert_close(update, expected, 1e-12)
    size = max(float(np.abs(error).max()) for error in paper.errors)
    for mine, theirs in zip(errors_of(simulator), paper.errors, strict=True):
        assert_close(mine, theirs, 1e-12, scale=size)
    assert_close(server_of(simulator), paper.server_error, 1e-12, scale=size)


# --- the paper's algorithm ---


def check_against_the_paper(compressor: Method, momentum: float, by_tensor: bool, world: int, library: Library) -> None:
    gradients = gradients_of(world, len(RATES))
    blocks = scale_blocks(world, tensor_blocks() if by_tensor else [(0, SIZE)])
    paper = dist_ef([[flat(g) for g in own] for own in gradients], RATES, block_sign(blocks), momentum)
    follow(run(compressor, gradients, RATES, library), paper, RATES)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(
    ("compressor", "momentum", "by_tensor"),
    [
        (DistEFSGD(), 0.0, False),
        (DistEFSGDM(), 0.9, False),
        (DistEFBlockSGD(BlockSign(block=256)), 0.0, True),
        (DistEFBlockSGDM(BlockSign(block=256), momentum=0.5), 0.5, True),
    ],
    ids=lambda value: repr(value) if isinstance(value, Method) else None,
)
def test_the_paper(world: int, compressor: Method, momentum: float, by_tensor: bool) -> None:
    """Updates and residuals, with a scale for every shard of the model, or of every tensor."""
    check_against_the_paper(compressor, momentum, by_tensor, world, NUMPY)


def test_the_paper_in_every_library(library: Library) -> None:
    check_against_the_paper(DistEFSGDM(), 0.9, False, 3, library)
    check_against_the_paper(DistEFBlockSGD(BlockSign(block=256)), 0.0, True, 2, library)


@pytest.mark.parametrize("world", [1, 3])
@pytest.mark.parametrize("cap", [0.5, 1.0, 2.0])
def test_a_cap_cuts_the_ratio(world: int, cap: float) -> None:
    gradients = gradients_of(world, len(RATES))
    vectors, sign = [[flat(g) for g in own] for own in gradients], block_sign(scale_blocks(world, [(0, SIZE)]))
    found = run(DistEFSGDM(cap=cap), gradients, RATES)
    follow(found, dist_ef(vectors, RATES, sign, 0.9, cap), RATES)
    uncapped = dist_ef(vectors, RATES, sign, 0.9)
    assert np.abs(found[0][20] - uncapped.updates[20]).max() > 1e-3


@pytest.mark.parametrize("world", [1, 3])
def test_the_ratio_can_be_left_out(world: int) -> None:
    """Residuals then stay as they are whatever the rate does, also where it is not known."""
    gradients = gradients_of(world, 8)
    rates = [0.1, 0.1, 0.01, 0.01, 0.001, 1.0, 1.0, 0.1]
    sign = block_sign(scale_blocks(world, [(0, SIZE)]))
    paper = dist_ef([[flat(g) for g in own] for own in gradients], rates, sign, 0.9, rescale=False)
    follow(run(DistEFSGDM(follow_step_size=False), gradients, rates), paper, rates)
    Simulator(DistEFSGDM(follow_step_size=False), world, allow_larger=True).step(gradients[0])


def test_a_constant_rate_has_ratio_one() -> None:
    """Bit by bit what it is without ratios, from the first step on; no ratio is anything but a number."""
    gradients = gradients_of(3, 6)
    followed, _ = run(DistEFBlockSGDM(BlockSign(block=256)), gradients, [0.3] * 6)
    left_out, _ = run(DistEFBlockSGDM(BlockSign(block=256), follow_step_size=False), gradients, [0.3] * 6)
    for a, b in zip(followed, left_out, strict=True):
        assert np.isfinite(a).all()
        assert bits(a) == bits(b)


# --- the virtual iterate ---


def schedule(steps: int) -> list[float]:
    """Return a warm-up from 0, a step at 0, and a tenfold drop."""
    warm_up = [0.1 * i / 20 for i in range(20)]
    rest = [0.1] * (steps // 2 - 20) + [0.01] * (steps - steps // 2)
    rest[10] = 0.0
    return warm_up + rest


@pytest.mark.parametrize(
    ("compressor", "momentum", "world", "steps"),
    [
        (DistEFSGDM(), 0.9, 3, 200),
        (DistEFBlockSGDM(BlockSign(block=256), momentum=0.5), 0.5, 3, 200),
        (DistEFSGD(), 0.0, 4, 100),
        (DistEFBlockSGDM(OneBit(), block=64e-6), 0.9, 2, 100),
        (DistEFSGDM(Scaled(OneBit(), 0.5)), 0.9, 1, 100),
        (DistEFBlockSGD(Cast("bfloat16")), 0.0, 2, 100),
    ],
    ids=lambda value: repr(value) if isinstance(value, Method) else None,
)
def test_the_virtual_iterate_is_uncompressed_nesterov(
    compressor: Method, momentum: float, world: int, steps: int
) -> None:
    """x - eta (E + mean e) goes where SGD goes with the mean gradient, for any schedule and any codec.

    Gradients are those at the compressed iterate: of quadratics whose minima differ between workers, and noise.
    """
    draw = np.random.default_rng(6)
    rates, curvature = schedule(steps), draw.uniform(0.1, 1.0, SIZE)
    minima = [draw.standard_normal(SIZE) for _ in range(world)]
    simulator = Simulator(compressor, world, allow_larger=True)
    x, start = np.zeros(SIZE), np.zeros(SIZE)
    means: list[np.ndarray] = []
    last, lag = 0.0, 0.0
    for step, rate in enumerate(rates):
        noise = [draw.standard_normal(SIZE) for _ in range(world)]
        own = [curvature * (x - m) + n for m, n in zip(minima, noise, strict=True)]
        means.append(average(own))
        simulator.learning_rate = rate
        x = x - rate * flat(simulator.step([_named(g) for g in own])[0])
        last = rate or last
        if step % 10 == 9:
            virtual = virtual_iterate(x, last, server_of(simulator), errors_of(simulator))
            reference = nesterov_sgd(means, rates[: step + 1], start, momentum)[-1]
            assert_close(virtual, reference, 1e-12, scale=max(1.0, float(np.abs(reference).max())))
            lag = max(lag, float(np.abs(x - reference).max()))
    assert lag > 1e-6, "the iterate itself lags behind: something was compressed"


def _named(vector: np.ndarray) -> dict[str, np.ndarray]:
    return {name: vector[a:b].reshape(SHAPES[name]) for name, (a, b) in zip(SHAPES, tensor_blocks(), strict=True)}


# --- without compression ---


@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
@pytest.mark.parametrize(
    ("make", "momentum"),
    [
        (DistEFSGD, 0.0),
        (DistEFSGDM, 0.9),
        (DistEFBlockSGD, 0.0),
        (lambda *args, **kwargs: DistEFBlockSGDM(*args, momentum=0.6, block=64e-6, **kwargs), 0.6),
    ],
    ids=["sgd", "sgdm", "block-sgd", "block-sgdm"],
)
def test_without_compression_it_is_torchs_sgd(
    make: Callable[..., Method], momentum: float, weight_decay: float
) -> None:
    """Also with weight decay, which is nowhere compressed, and with a rate that drops."""
    world, params = 3, {name: torch.nn.Parameter(_torch(x)) for name, x in normal_gradients(1, 9, SHAPES)[0].items()}
    mine = {name: p.detach().clone() for name, p in params.items()}
    reference = torch.optim.SGD(
        params.values(), lr=0.1, momentum=momentum, nesterov=momentum > 0, weight_decay=weight_decay
    )
    simulator = Simulator(make(Identity(), weight_decay=weight_decay), world, allow_larger=True)
    for step in range(12):
        rate = 0.1 if step < 6 else 0.01
        gradients = normal_gradients(world, step, SHAPES)
        for name, p in params.items():
            p.grad = _torch(average([own[name] for own in gradients]))
        reference.param_groups[0]["lr"] = rate
        reference.step()
        simulator.learning_rate, simulator.parameters = rate, {name: x.clone() for name, x in mine.items()}
        means = simulator.step([{name: _torch(x) for name, x in own.items()} for own in gradients])[-1]
        mine = {name: x - rate * means[name] for name, x in mine.items()}
        for name, p in params.items():
            assert_close(mine[name], p.detach(), 1e-12, scale=1.0)


def _torch(x: Any) -> torch.Tensor:
    return torch.tensor(np.asarray(x), dtype=torch.float64)


def test_weight_decay_is_added_uncompressed(world_size: int) -> None:
    """The update is that without decay, plus lambda x and its own momentum, exactly."""
    plain = Simulator(DistEFBlockSGDM(BlockSign(block=256)), world_size, learning_rate=0.1, allow_larger=True)
    decayed = Simulator(
        DistEFBlockSGDM(BlockSign(block=256), weight_decay=0.05), world_size, learning_rate=0.1, allow_larger=True
    )
    x, buffer = normal_gradients(1, 7, SHAPES)[0], np.zeros(SIZE)
    for step in range(5):
        gradients = normal_gradients(world_size, step, SHAPES)
        decayed.parameters = x
        expected, found = flat(plain.step(gradients)[0]), flat(decayed.step(gradients)[0])
        added, buffer = decay(flat(x), buffer, 0.9, 0.05)
        assert_close(found, expected + added, 1e-13)
        x = {name: 0.9 * value for name, value in x.items()}


# --- blocks and workers ---


@given(scales=st.lists(st.floats(-8, 8), min_size=4, max_size=4), seed=st.integers(0, 99))
def test_blocks_lose_no_more_than_one_block(scales: list[float], seed: int) -> None:
    """By Cauchy and Schwarz; and less where the tensors' scales differ."""
    model = normal_gradients(1, 0, SHAPES, seed)[0]
    gradient = {name: 10.0**s * x for (name, x), s in zip(model.items(), scales, strict=True)}
    lost = {}
    for name, compressor in {"one": DistEFSGD(), "block": DistEFBlockSGD(BlockSign(block=256))}.items():
        updates, _ = run(compressor, [[gradient]], [0.1])
        lost[name] = float(np.sum((flat(gradient) - updates[0]) ** 2))
    assert lost["block"] <= lost["one"] * (1 + 1e-12)
    if max(scales) - min(scales) > 2:
        assert lost["block"] < lost["one"]


@pytest.mark.parametrize("world", [2, 3, 5])
def test_identical_workers_are_one(world: int) -> None:
    """W of them serve a shard each; the one that has the shards as tensors of its own is the same."""
    steps, rates = 6, [0.1, 0.1, 0.05, 0.05, 0.5, 0.5]
    vectors = [np.random.default_rng([8, step]).standard_normal(SIZE) for step in range(steps)]
    together, _ = run(DistEFSGDM(), [[{"w": v}] * world for v in vectors], rates)
    cut = shard_blocks(SIZE, world)
    alone, _ = run(
        DistEFBlockSGDM(BlockSign(block=256)), [[{f"w{a}": v[a:b] for a, b in cut if a < b}] for v in vectors], rates
    )
    for a, b in zip(together, alone, strict=True):
        assert_close(a, b, 1e-12)


@given(size=st.integers(1, 40), world=st.integers(1, 7), seed=st.integers(0, 99))
def test_any_length_over_any_number_of_workers(size: int, world: int, seed: int) -> None:
    """Also lengths that fill no byte, and fewer elements than workers."""
    gradients = [normal_gradients(world, step, {"w": (size,)}, seed) for step in range(3)]
    rates = [0.1, 0.1, 0.01]
    blocks = pieces([(0, size)], shard_blocks(size, world))
    paper = dist_ef([[g["w"] for g in own] for own in gradients], rates, block_sign(blocks), 0.9)
    for found, expected in zip(
        run(DistEFBlockSGDM(BlockSign(block=256)), gradients, rates)[0], paper.updates, strict=True
    ):
        assert_close(found, expected, 1e-11)


def test_megabytes_make_blocks_of_neighbours() -> None:
    for block, units in (("tensor", ["a", "b", "c", "d"]), (64e-6, ["a", "b..c", "d"]), (1, ["a..d"])):
        _, simulator = run(DistEFBlockSGDM(BlockSign(block=256), block=block), gradients_of(2, 1), [0.1])
        assert sorted(unit.name for unit in simulator.plan.units) == units
    _, simulator = run(DistEFSGD(), gradients_of(2, 1), [0.1])
    assert [unit.name for unit in simulator.plan.units] == ["a..d"]


# --- traffic ---


@pytest.mark.parametrize("make", VARIANTS, ids=lambda make: make.__name__)
def test_what_a_worker_sends_does_not_grow_with_the_workers(make: type[Method]) -> None:
    """2 (W-1)/W d/8 bytes, and the scales of a shard each way: 1/32 of a float32 average, 1/28 with small blocks."""
    size = 64 * 8 * 100
    spec = Spec((size,))
    for world in (2, 4, 8, 16, 32, 64):
        sent = make().wire_bytes(spec, world)
        block = make().codec.block
        scales = -(-(size // world) // block) if block else 1
        assert sent == 2 * (world - 1) * (size // 8 // world + 4 * scales)
        assert sent <= make(Identity()).wire_bytes(spec, world) / (28 if block else 32) + 8 * world
    gradients = [{"w": np.ones(size, np.float32)}] * 2
    simulator = Simulator(make(), 2, learning_rate=0.1)
    simulator.step(gradients)
    assert simulator.sent_bytes == make().wire_bytes(spec, 2)


# --- what must not go wrong ---


@pytest.mark.parametrize("make", VARIANTS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("poison", [np.inf, -np.inf, np.nan])
def test_one_rank_that_is_not_finite_is_seen_by_all_and_forgotten(make: type[Method], poison: float) -> None:
    simulator = Simulator(make(), 3, learning_rate=0.1, allow_larger=True)
    for step in range(4):
        gradients = normal_gradients(3, step, SHAPES)
        if step == 1:
            gradients[2]["a"][1, 1] = poison
        with np.errstate(all="ignore"):
            means = simulator.step(gradients)
        assert [bool(np.isfinite(flat(mean)).all()) for mean in means] == [step != 1] * 3
        for state in simulator.state_dicts():
            for unit in state["units"].values():
                assert all(np.isfinite(wide(leaf)).all() for _, leaf in walk(unit["leaves"]))


@pytest.mark.parametrize("make", VARIANTS, ids=lambda make: make.__name__)
def test_zero_gradients_give_zero_updates(make: type[Method], library: Library) -> None:
    updates, _ = run(
        make(), [[{name: np.zeros(shape) for name, shape in SHAPES.items()}] * 2] * 3, [0.0, 0.1, 0.1], library
    )
    assert not any(np.any(update) for update in updates)


def test_a_rate_is_asked_for_where_it_is_needed() -> None:
    with pytest.raises(ConfigurationError, match="learning_rate"):
        Simulator(DistEFSGD(), 2, allow_larger=True).step(normal_gradients(2, 0, SHAPES))
    with pytest.raises(ConfigurationError, match="parameters"):
        Simulator(DistEFSGD(weight_decay=0.1), 2, learning_rate=0.1).step(normal_gradients(2, 0, SHAPES))


def test_ef_signsgd_in_units_of_the_step() -> None:
    """StepSizeScaling around any method with residuals is the algorithm whose gradients are multiplied by the rate."""
    gradients, rates = gradients_of(2, 6, {"w": (9,)}), [0.1, 0.2, 0.0, 0.02, 0.02, 0.5]
    updates, _ = run(StepSizeScaling(EFSignSGD()), gradients, rates)
    errors = [np.zeros(9), np.zeros(9)]
    for own, rate, update in zip(gradients, rates, updates, strict=True):
        if rate == 0:
            continue
        moved = [rate * g["w"] + e for g, e in zip(own, errors, strict=True)]
        sent = [np.mean(np.abs(p)) * np.where(p >= 0, 1, -1) for p in moved]
        errors = [p - s for p, s in zip(moved, sent, strict=True)]
        assert_close(rate * update, average(sent), 1e-12)


@pytest.mark.parametrize("make", VARIANTS, ids=lambda make: make.__name__)
def test_settings_are_checked(make: type[Method]) -> None:
    bad: list[dict[str, Any]] = [
        {"codec": EFSignSGD()},
        {"codec": BlockSign},
        {"weight_decay": -1.0},
        {"weight_decay": math.nan},
        {"cap": 0.0},
        {"cap": math.nan},
        {"cap": 2.0, "follow_step_size": False},
    ]
    if make in (DistEFSGDM, DistEFBlockSGDM):
        bad += [{"momentum": 1.0}, {"momentum": -0.5}, {"momentum": math.nan}]
    if make in (DistEFBlockSGD, DistEFBlockSGDM):
        bad += [{"block": 0}, {"block": "layer"}, {"block": math.nan}, {"block": True}, {"block": None}]
    for settings in bad:
        with pytest.raises(ConfigurationError):
            make(**settings)
    assert make().has_momentum == (make in (DistEFSGDM, DistEFBlockSGDM))
    assert make(weight_decay=0.1).needs_parameters
    assert not make().needs_parameters


@pytest.mark.parametrize("codec", [BlockSign(), OneBit(), Scaled(BlockSign(), 0.5), Cast("bfloat16")], ids=repr)
def test_any_contraction_plugs_in(codec: Codec) -> None:
    """Over many steps of one gradient, all of it is applied: what is left is bounded."""
    gradients = normal_gradients(2, 0, SHAPES)
    wanted = average([flat(own) for own in gradients])
    updates, _ = run(DistEFBlockSGD(codec), [gradients] * 100, [0.1] * 100)
    assert_close(np.mean(updates, axis=0), wanted, 0.2)
