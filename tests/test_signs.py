"""Codecs of one bit an element, and the methods that send them with or without feedback, against transcriptions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from cases import NUMPY, TORCH, Library, assert_close, bits, normal_gradients, overwrite, wide
from hypothesis import given
from hypothesis import strategies as st
from oracles.dist_ef import block_sign, dist_ef, pieces, shard_blocks
from oracles.feedback import with_feedback
from oracles.momentum import sign, signum
from oracles.quantisers import one_bit, pack, scaled_sign

from hvd_compress import (
    AllGather,
    BlockSign,
    Cast,
    Codec,
    ConfigurationError,
    EFSignSGD,
    ErrorFeedback,
    Identity,
    Joined,
    OneBit,
    OneBitSGD,
    Operator,
    Scaled,
    SignumMajorityVote,
    Simulator,
    Spec,
    TwoWay,
    Warmup,
)
from hvd_compress.contract import Key, walk
from hvd_compress.exchange import make_plan
from hvd_compress.ops import ArrayOps, ops_of

WORLDS = (1, 2, 3, 4, 5, 7)
SHAPES = [(), (1,), (3,), (8,), (13,), (5, 3), (2, 3, 3, 1)]


def coded(codec: Codec, x: Any) -> tuple[tuple[Any, ...], Any]:
    """Return the parts of x, and what they decode to."""
    ops = ops_of(x)
    spec = Spec(ops.shape(x), ops.dtype(x))
    parts = codec.encode(x, ops, ())
    assert tuple((ops.shape(part)[0], ops.dtype(part)) for part in parts) == codec.payload(spec)
    return parts, codec.decode(parts, spec, ops)


def whole(paper: Any, x: np.ndarray) -> np.ndarray:
    return np.asarray(paper(x, [x.size]))


def vectors(world: int, step: int, size: int) -> list[np.ndarray]:
    return [own["w"] for own in normal_gradients(world, step, {"w": (size,)})]


# --- codecs ---


@pytest.mark.parametrize(("codec", "paper"), [(BlockSign(), scaled_sign), (OneBit(), one_bit)], ids=["sign", "one-bit"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_is_decoded_is_the_papers(library: Library, codec: Codec, paper: Any, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(1).standard_normal(shape)
    for dtype in library.dtypes:
        array = library.array(x, dtype)
        _, found = coded(codec, array)
        assert tuple(found.shape) == shape
        tolerance = {"float64": 1e-14, "float32": 1e-6, "float16": 1e-3, "bfloat16": 8e-3}[dtype]
        assert_close(found, whole(paper, wide(array)), tolerance)


@given(size=st.integers(0, 41), seed=st.integers(0, 99))
@pytest.mark.parametrize("library", [NUMPY, TORCH], ids=["numpy", "torch"])
def test_signs_are_single_bits_lowest_first(library: Library, size: int, seed: int) -> None:
    """Of any length, also none; +1 for 0 and for -0."""
    x = np.random.default_rng(seed).integers(-2, 3, size) * 1.0
    x[x == 0] *= np.where(np.arange(np.sum(x == 0)) % 2, 1.0, -1.0)
    for codec in (BlockSign(), BlockSign(scaled=False), OneBit()):
        parts, _ = coded(codec, library.array(x))
        assert bits(parts[0]) == pack([int(v >= 0) for v in x], 1)[: -(-size // 8)]
    assert np.array_equal(wide(coded(BlockSign(scaled=False), library.array(x))[1]), sign(x))


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_the_contraction_is_exactly_delta(values: list[float]) -> None:
    """||x - C(x)||^2 = (1 - ||x||_1^2 / (d ||x||_2^2)) ||x||^2; two values for the same bits are never worse."""
    x = np.array(values)
    signs, two = (np.sum((x - coded(codec, x.copy())[1]) ** 2) for codec in (BlockSign(), OneBit()))
    allowed = 1e-12 * np.sum(x**2)
    assert abs(signs - (np.sum(x**2) - np.sum(np.abs(x)) ** 2 / x.size)) <= allowed
    assert abs(two - (np.sum(x**2) - np.sum(whole(one_bit, x) ** 2))) <= allowed
    assert two <= signs + allowed


@pytest.mark.parametrize("codec", [BlockSign(), OneBit()], ids=repr)
@pytest.mark.parametrize("x", [np.zeros(5), np.full(5, 2.0), np.full(5, -2.0), np.array([0.0, 0.0, -4.0])], ids=str)
def test_one_sided_blocks(library: Library, codec: Codec, x: np.ndarray) -> None:
    """No element on one side of zero is no mean of nothing."""
    found = wide(coded(codec, library.array(x))[1])
    assert_close(found, whole(one_bit if isinstance(codec, OneBit) else scaled_sign, x), 1e-6)


@pytest.mark.parametrize("poison", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("codec", [BlockSign(), BlockSign(scaled=False), OneBit()], ids=repr)
def test_what_is_not_finite_is_seen(library: Library, codec: Codec, poison: float) -> None:
    with np.errstate(all="ignore"):
        _, found = coded(codec, library.array([1.0, -2.0, poison, 3.0]))
        assert not np.isfinite(wide(found)).all()
        if codec == BlockSign(scaled=False):
            assert np.isnan(wide(found)).all()


def test_votes_are_exactly_one_also_for_huge_numbers(library: Library) -> None:
    """A sum that overflows is no reason to call finite numbers infinite."""
    parts, found = coded(BlockSign(scaled=False), library.array(np.full(4, 3e38) * [1, -1, 1, 1]))
    assert wide(parts[1]).tolist() == [1.0]
    assert wide(found).tolist() == [1.0, -1.0, 1.0, 1.0]


# --- scaling ---


@dataclass(frozen=True, repr=False)
class Coins(Codec):
    """Twice the element on heads, else 0: unbiased, with a variance of exactly ||x||^2, so that w = 2."""

    def encode(self, array: Any, ops: ArrayOps, key: Key = ()) -> tuple[Any, ...]:
        flat = ops.flatten(array)
        heads = ops.uniform(ops.shape(flat), ops.dtype(flat), ("coins", *key)) < 0.5
        return (ops.where(heads, 2.0 * flat, 0.0 * flat),)

    def decode(self, parts: tuple[Any, ...], spec: Spec, ops: ArrayOps) -> Any:
        return ops.reshape(ops.copy(parts[0]), spec.shape)

    def payload(self, spec: Spec) -> tuple[tuple[int, str], ...]:
        return ((spec.size, spec.dtype),)

    def summable(self, spec: Spec) -> bool:
        return False


def test_an_unbiased_codec_over_w_is_a_contraction_on_average() -> None:
    """E||x - U(x)/w||^2 <= (1 - 1/w) ||x||^2, where U itself is no contraction at all."""
    x = np.random.default_rng(2).standard_normal(50)
    ops, spec, draws = ops_of(x), Spec(x.shape, "float64"), 400

    def error(codec: Codec) -> np.ndarray:
        decoded = [codec.decode(codec.encode(x.copy(), ops, (i,)), spec, ops) for i in range(draws)]
        return np.array([np.sum((x - found) ** 2) for found in decoded]) / np.sum(x**2)

    plain, scaled = error(Coins()), error(Scaled(Coins(), 1 / 2))
    assert plain.mean() > 0.9
    assert abs(scaled.mean() - 0.5) < 5 * scaled.std() / math.sqrt(draws)


@pytest.mark.parametrize("inner", [Identity(), Cast("bfloat16"), BlockSign(), OneBit()], ids=repr)
def test_scaled_multiplies_and_leaves_its_input_alone(library: Library, inner: Codec) -> None:
    x = library.array(np.random.default_rng(3).standard_normal(12))
    before = bits(x)
    parts, found = coded(Scaled(inner, 0.25), x)
    again = wide(found).copy()
    assert_close(found, 0.25 * wide(coded(inner, x)[1]), 1e-6)
    overwrite(found, 7.0)
    assert bits(x) == before
    assert np.array_equal(wide(Scaled(inner, 0.25).decode(parts, Spec((12,)), ops_of(x))), again)


def test_scaled_settings() -> None:
    for factor in (0.0, -1.0, 1.5, math.nan, True, "1"):
        with pytest.raises(ConfigurationError, match="factor="):
            Scaled(BlockSign(), factor)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="codec"):
        Scaled(EFSignSGD(), 0.5)  # type: ignore[arg-type]
    assert Scaled(Identity(), 1.0).lossless(Spec((3,)))
    assert not Scaled(Identity(), 0.5).lossless(Spec((3,)))
    assert Scaled(BlockSign(scaled=False), 0.5).votes


# --- methods with feedback ---


@pytest.mark.parametrize("world", WORLDS)
def test_ef_signsgd_is_the_papers(library: Library, world: int) -> None:
    gradients = [vectors(world, step, 13) for step in range(8)]

    def compress(step: int, corrected: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        sent = [scaled_sign(p, [p.size]) for p in corrected]
        return np.mean(sent, axis=0), sent

    expected, memories = with_feedback(compress, gradients, 1.0, 1.0)
    simulator = Simulator(EFSignSGD(), world, allow_larger=True)
    for own, update in zip(gradients, expected, strict=True):
        assert_close(simulator.step(library.arrays([{"w": g} for g in own], "float64"))[-1]["w"], update, 1e-12)
    for state, memory in zip(simulator.state_dicts(), memories, strict=True):
        assert_close(state["units"]["w"]["leaves"]["error"], memory, 1e-12)


@pytest.mark.parametrize("world", WORLDS)
def test_one_bit_sgd_is_the_papers(library: Library, world: int) -> None:
    """Two values for every shard, on the way there and back."""
    size = 13
    shards = [b - a for a, b in shard_blocks(size, world)]
    gradients = [vectors(world, step, size) for step in range(8)]
    paper = dist_ef(gradients, [1.0] * 8, lambda p: one_bit(p, shards), rescale=False)
    simulator = Simulator(OneBitSGD(), world, allow_larger=True)
    for own, update in zip(gradients, paper.updates, strict=True):
        assert_close(simulator.step(library.arrays([{"w": g} for g in own], "float64"))[-1]["w"], update, 1e-12)


def test_signs_with_feedback_cost_what_they_say() -> None:
    spec = Spec((1024,))
    for world in (2, 3, 8, 64):
        assert EFSignSGD().wire_bytes(spec, world) == (world - 1) * (1024 // 8 + 4)
    for world in (2, 4, 8, 64):
        assert OneBitSGD().wire_bytes(spec, world) == 2 * (world - 1) * (1024 // 8 // world + 8)


# --- votes ---


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("world", WORLDS)
def test_the_vote_is_the_sign_of_the_sum_of_signs(library: Library, world: int, momentum: float) -> None:
    """Small whole numbers, so that zeros and ties occur at every step; with momentum those of the momenta."""
    draw = np.random.default_rng(world)
    gradients = [[draw.integers(-1, 2, 29) * 1.0 for _ in range(world)] for _ in range(6)]
    expected = signum(gradients, momentum).votes
    simulator = Simulator(SignumMajorityVote(momentum), world, allow_larger=True)
    ties = 0
    for own, vote in zip(gradients, expected, strict=True):
        means = simulator.step(library.arrays([{"a": g[:11].reshape(11, 1), "b": g[11:]} for g in own], "float64"))
        for mean in means:
            assert np.array_equal(np.concatenate([wide(mean["a"]).ravel(), wide(mean["b"])]), vote)
        ties += int(np.sum(np.sum([sign(g) for g in own], axis=0) == 0))
    assert world % 2 == 1 or ties > 0


def test_joining_changes_nothing_but_the_bytes() -> None:
    shapes = {"a": (3, 5), "b": (), "c": (7,), "d": (1, 1)}
    alone, joined = Simulator(TwoWay(BlockSign(scaled=False)), 3), Simulator(SignumMajorityVote(0.0), 3)
    for step in range(3):
        gradients = normal_gradients(3, step, shapes)
        found, expected = joined.step(gradients)[0], alone.step(gradients)[0]
        assert all(np.array_equal(found[name], expected[name]) for name in shapes)
    assert [unit.name for unit in joined.plan.units] == ["a..d"]
    assert joined.sent_bytes < alone.sent_bytes


@pytest.mark.parametrize(
    "compressor",
    [
        SignumMajorityVote(),
        SignumMajorityVote(momentum=0.0),
        BlockSign(scaled=False),
        AllGather(BlockSign(scaled=False)),
        Warmup(2, SignumMajorityVote()),
        Warmup(2, ErrorFeedback(BlockSign(scaled=False))),
        Joined(Scaled(BlockSign(scaled=False), 1.0)),
    ],
    ids=repr,
)
def test_no_average_stands_in_for_a_vote(compressor: Operator | Codec) -> None:
    """However small the gradient, and also while a warm-up lasts: every element moves by the same."""
    simulator = Simulator(compressor, 2)
    for step in range(4):
        own = normal_gradients(1, step, {"w": (2,)})[0]
        mean = simulator.step([own, own])[0]["w"]
        assert np.abs(mean).tolist() == [1.0, 1.0], f"step {step}"
    spec = Spec((1,))
    assert not make_plan(compressor, [("w", spec)], 64).units[0].dense


def test_a_vote_sends_bits_whatever_the_number_of_workers() -> None:
    spec = Spec((64 * 8 * 5,))
    for world in (2, 4, 8, 16, 32, 64):
        share = 64 * 5 // world
        assert SignumMajorityVote().wire_bytes(spec, world) == 2 * (world - 1) * (share + 4)


@pytest.mark.parametrize("poison", [np.inf, -np.inf, np.nan])
def test_one_rank_that_is_not_finite_spoils_the_vote_of_that_step_only(library: Library, poison: float) -> None:
    simulator = Simulator(SignumMajorityVote(), 3)
    for step in range(4):
        gradients = normal_gradients(3, step, {"w": (40,)})
        if step == 1:
            gradients[2]["w"][17] = poison
        with np.errstate(all="ignore"):
            means = [wide(mean["w"]) for mean in simulator.step(library.arrays(gradients))]
        for mean in means:
            assert np.isfinite(mean).all() == (step != 1)
            assert step == 1 or set(np.unique(mean)) == {-1.0, 1.0}
        for state in simulator.state_dicts():
            leaves = state["units"]["w"]["leaves"]
            assert all(np.isfinite(wide(leaf)).all() for _, leaf in walk(leaves))


def test_signum_settings() -> None:
    for momentum in (1.0, -0.1, math.nan, True):
        with pytest.raises(ConfigurationError, match="momentum="):
            SignumMajorityVote(momentum)
    assert SignumMajorityVote().has_momentum
    assert not SignumMajorityVote(momentum=0.0).has_momentum


# --- joining ---


def test_joined_units_share_one_scale() -> None:
    """The scale of signs is that of everything joined; with half of it per unit there are two."""
    gradient = {"a": np.full((2, 2), 1.0), "b": np.full(4, -3.0)}
    for megabytes, expected in ((math.inf, (2.0, -2.0)), (64e-6, (2.0, -2.0)), (32e-6, (1.0, -3.0))):
        mean = Simulator(Joined(BlockSign(), megabytes), 1, allow_larger=True).step([gradient])[0]
        assert_close(mean["a"], np.full((2, 2), expected[0]), 1e-12)
        assert_close(mean["b"], np.full(4, expected[1]), 1e-12)


def test_scales_are_per_shard(world_size: int) -> None:
    """A block that W ranks serve has W scales, cut where the shards are."""
    x = np.random.default_rng(4).standard_normal(13)
    mean = Simulator(TwoWay(BlockSign()), world_size, allow_larger=True).step([{"w": x}] * world_size)[0]["w"]
    assert_close(mean, block_sign(pieces([(0, 13)], shard_blocks(13, world_size)))(x), 1e-12)


def test_joined_settings() -> None:
    for megabytes in (0, -1.0, math.nan, True, "50"):
        with pytest.raises(ConfigurationError, match="megabytes="):
            Joined(BlockSign(), megabytes)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="compressor"):
        Joined(BlockSign)  # type: ignore[arg-type]
    assert Joined(BlockSign(), 2).unit_bytes == 2e6
