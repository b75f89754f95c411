"""SharedScale: integers on one grid, added up by an allreduce, give what rounding to that grid gives."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from cases import Library, assert_close, bits, normal_gradients, wide
from hypothesis import given
from hypothesis import strategies as st
from oracles import quantisers as oracle
from oracles.collectives import collective

from hvd_compress import ConfigurationError, SharedScale, Simulator, Spec
from hvd_compress.contract import Context, Sum, sent_bytes
from hvd_compress.operators.shared_scale import fields, packed_fields, unpacked_fields
from hvd_compress.ops import ops_of

WORLDS = (1, 2, 3, 4, 5, 7)


def uniforms(size: int, step: int, rank: int) -> np.ndarray:
    return wide(ops_of(np.zeros(1)).thresholds("float64", ("w", step, rank))(0, size))


@given(
    size=st.integers(1, 40),
    bucket=st.integers(0, 12),
    levels=st.integers(1, 127),
    world=st.sampled_from(WORLDS),
    seed=st.integers(0, 99),
)
@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_it_is_what_the_paper_says(name: str, size: int, bucket: int, levels: int, world: int, seed: int) -> None:
    xs = [own["w"] for own in normal_gradients(world, 0, {"w": (size,)}, seed)]
    expected, sent = oracle.shared_scale(xs, levels, bucket or size, [uniforms(size, 0, rank) for rank in range(world)])
    for x, contributed, outcome in zip(xs, sent, outcomes(SharedScale(levels, bucket), xs, Library(name)), strict=True):
        assert_close(outcome.mean, expected, 1e-12, scale=4.0)
        assert_close(outcome.rest, x - contributed, 1e-12, scale=4.0)


def outcomes(operator: SharedScale, xs: list[np.ndarray], library: Library) -> list[Any]:
    """Return what each worker ends with; the collectives are answered by hand."""
    arrays = [library.array(x, "float64") for x in xs]
    ops, spec = ops_of(arrays[0]), Spec(xs[0].shape, "float64")
    exchanges = [
        operator.exchange(x, {}, Context(ops, spec, "w", 0, rank, len(xs), feedback=True))
        for rank, x in enumerate(arrays)
    ]
    scales = [next(exchange) for exchange in exchanges]
    largest = np.max([wide(request.array) for (request,) in scales], axis=0)
    rounds = [exchange.send([library.array(largest, "float64")]) for exchange in exchanges]
    sums = collective("Sum", [summed.array for summed, _ in rounds])
    ended = []
    for exchange, total, (_, meanwhile) in zip(exchanges, sums, rounds, strict=True):
        with pytest.raises(StopIteration) as stopped:
            exchange.send([total, meanwhile.work()])
        ended.append(stopped.value.value)
    return ended


@given(size=st.integers(1, 50), levels=st.integers(1, 127), world=st.integers(1, 64), seed=st.integers(0, 9))
@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_fields_do_not_carry_into_one_another(name: str, size: int, levels: int, world: int, seed: int) -> None:
    """The sum of packed words is the packed sum, also where all workers send the largest number."""
    library, random = Library(name), np.random.default_rng(seed)
    numbers = random.integers(0, 2 * levels + 1, (world, size))
    numbers[:, random.integers(0, 2, size) == 1] = 2 * levels
    width, count = fields(levels, world)
    assert width == math.floor(math.log2(2 * levels * world)) + 1
    assert width * count <= 31 < width * (count + 1)
    ops = ops_of(library.array(0.0))
    words = [packed_fields(ops.cast(library.array(x), "int32"), levels, world, ops) for x in numbers]
    total = collective("Sum", words)[0]
    assert ops.dtype(total) == "int32"
    assert ops.shape(total) == (-(-size // count),)
    assert wide(total).min() >= 0
    assert wide(unpacked_fields(total, levels, world, size, ops)).tolist() == numbers.sum(axis=0).tolist()


@pytest.mark.parametrize("world", WORLDS)
def test_all_workers_apply_the_same_bits(library: Library, world: int) -> None:
    simulator = Simulator(SharedScale(bucket=10), world, allow_larger=True)
    for step in range(3):
        means = simulator.step(library.arrays(normal_gradients(world, step, {"w": (5, 7), "b": (3,), "s": ()})))
        assert all({n: bits(x) for n, x in own.items()} == {n: bits(x) for n, x in means[0].items()} for own in means)


@pytest.mark.parametrize("clip", [0.0, 2.5])
def test_one_worker_does_what_the_codec_does(library: Library, clip: float) -> None:
    """For one worker the shared scale is its own: QSGD's max norm, and TernGrad."""
    x = np.random.default_rng(2).standard_normal(200) ** 3
    operator = SharedScale(1, 0, clip) if clip else SharedScale(7, 30)
    mean = Simulator(operator, 1, allow_larger=True).step([{"w": library.array(x, "float64")}])[0]["w"]
    u = uniforms(200, 0, 0)
    expected = oracle.terngrad(x, u, clip) if clip else oracle.qsgd(x, 7, 30, u, "max")
    assert_close(mean, expected, 1e-12)
    assert np.abs(wide(mean)).max() <= np.abs(x).max()


def test_unbiased() -> None:
    world, count = 3, 400
    xs = [own["w"] for own in normal_gradients(world, 0, {"w": (23,)})]
    simulator = Simulator(SharedScale(levels=2, bucket=10), world, allow_larger=True)
    made = np.stack([simulator.step([{"w": x} for x in xs])[0]["w"] for _ in range(count)])
    scale = max(np.abs(x).max() for x in xs) / 2
    assert np.all(np.abs(made.mean(axis=0) - np.mean(xs, axis=0)) <= 5 * scale / 2 / math.sqrt(world * count))
    assert np.all(made.std(axis=0) <= scale)
    assert made.std(axis=0).max() > scale / 20


def test_buckets_of_zeros_and_a_worker_of_zeros(library: Library) -> None:
    x = np.concatenate([np.zeros(10), np.full(5, 3.0)])
    means = Simulator(SharedScale(levels=1, bucket=10), 2, allow_larger=True).step(
        [{"w": library.array(x)}, {"w": library.array(np.zeros(15))}]
    )
    assert wide(means[0]["w"]).tolist() == [0.0] * 10 + [1.5] * 5


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("clip", [0.0, 2.5])
def test_what_is_not_finite_on_one_rank_is_seen_on_all(library: Library, poison: float, clip: float) -> None:
    xs = [own["w"] for own in normal_gradients(3, 0, {"w": (25,)})]
    xs[1][12] = poison
    with np.errstate(all="ignore"):
        means = Simulator(SharedScale(bucket=10, clip=clip), 3, allow_larger=True).step(
            [{"w": library.array(x)} for x in xs]
        )
    for own in means:
        finite = np.isfinite(wide(own["w"]))
        assert not finite[10:20].any()
        assert clip or (finite[:10].all() and finite[20:].all())


def test_bytes_grow_with_the_logarithm_of_the_number_of_workers() -> None:
    spec, sent = Spec((2**16,)), {}
    for world in (2, 4, 8, 16, 32, 64):
        scales, words = (payloads[0] for payloads in SharedScale().traffic(spec, world, 0))
        assert (scales.count, scales.dtype, words.dtype) == (128, "float32", "int32")
        sent[world] = 32 * words.count / spec.size
        assert sent[world] >= math.log2(14 * world + 1)
    assert sent[2] < 5.4 and sent[4] < 6.5 and sent[64] < 10.7
    dense = sent_bytes(Sum, spec.nbytes, 8)
    assert dense / 6.01 < SharedScale(levels=1, bucket=0).wire_bytes(spec, 8) < dense / 5.99
    assert SharedScale(levels=1, bucket=0).traffic(spec, 8, 0)[0][0].count == 1


def test_a_worker_may_draw_what_another_does_not(library: Library) -> None:
    x = np.concatenate([[1.0], np.full(99, 0.5)])
    mean = Simulator(SharedScale(levels=1, bucket=0), 2, allow_larger=True).step([{"w": library.array(x)}] * 2)[0]["w"]
    assert set(wide(mean)[1:].tolist()) == {0.0, 0.5, 1.0}


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: SharedScale(levels=0), "SharedScale(levels=0)"),
        (lambda: SharedScale(levels=128), "SharedScale(levels=128)"),
        (lambda: SharedScale(bucket=-1), "SharedScale(bucket=-1)"),
        (lambda: SharedScale(clip=-0.5), "SharedScale(clip=-0.5)"),
    ],
)
def test_wrong_settings_are_refused(make: Any, told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert told in str(caught.value)
