"""Top-k and random-k: what is chosen, what travels, and that nothing else of a gradient is touched or lost."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cases import NUMPY, TORCH, Library, assert_close, bits, dtype_of, wide
from hypothesis import given
from hypothesis import strategies as st
from oracles.averaging import average
from oracles.collectives import lockstep
from oracles.feedback import with_feedback
from oracles.momentum import dgc
from oracles.sparsifiers import random_block, random_k, top_k

from hvd_compress import (
    DGC,
    AllGather,
    ConfigurationError,
    CorruptPayloadError,
    ErrorFeedback,
    Identity,
    LocalClip,
    MemSGD,
    MomentumCorrection,
    RandomBlock,
    RandomK,
    Schedule,
    Simulator,
    Spec,
    TopK,
    TwoWay,
)
from hvd_compress.codecs.positions import from_wire, index_dtype, to_wire
from hvd_compress.codecs.selection import alarm, chunk_of, count_of, largest, largest_of_chunks
from hvd_compress.contract import Context
from hvd_compress.ops import ops_of

OPS = ops_of(np.zeros(1))
WORLDS = (1, 2, 3, 4, 5, 7)
STEPS = 5


def normal(*key: int, shape: Any = (12, 9)) -> np.ndarray:
    return np.random.default_rng([31, *key]).standard_normal(shape)


def gradients(world: int, step: int, shape: tuple[int, ...] = (12, 9)) -> list[dict[str, np.ndarray]]:
    return [{"w": normal(step, rank, shape=shape)} for rank in range(world)]


def chosen_by(codec: TopK, x: Any) -> list[int]:
    ops = ops_of(x)
    spec = Spec(ops.shape(x), dtype_of(x))
    return [int(i) for i in ops.to_numpy(codec.positions(codec.encode(x, ops), spec, ops))]


# --- positions on the wire ---


def test_positions_take_the_smallest_integers_that_hold_them(library: Library) -> None:
    ops = ops_of(library.array(0.0))
    widths = {1: "uint8", 256: "uint8", 257: "int16", 32768: "int16", 32769: "int32", 2**31: "int32"}
    for size, dtype in widths.items():
        assert index_dtype(size) == dtype
        ends = ops.from_numpy(np.array([0, size - 1]))
        sent = to_wire(ends, size, ops)
        assert ops.dtype(sent) == dtype
        back = from_wire(sent, size, ops)
        assert ops.dtype(back) == "int64" and back.tolist() == [0, size - 1]


@pytest.mark.parametrize(("received", "size"), [([0, 10], 10), ([-1, 3], 300), ([7, 300], 300), ([255], 255)])
def test_positions_that_cannot_be_are_refused(library: Library, received: list[int], size: int) -> None:
    ops = ops_of(library.array(0.0))
    with pytest.raises(CorruptPayloadError, match=f"0 .. {size - 1}"):
        from_wire(ops.from_numpy(np.array(received, index_dtype(size))), size, ops)


@pytest.mark.parametrize("codec", [TopK(0.1, min_size=0), TopK(0.3, "chunked", min_size=0)], ids=repr)
def test_a_corrupt_payload_is_refused(library: Library, codec: TopK) -> None:
    x = library.array(normal(1, shape=(10, 10)))
    ops, spec = ops_of(x), Spec((10, 10))
    positions, values = codec.encode(x, ops)
    wrong = positions * 0 + 200
    for use in (codec.decode, codec.positions):
        with pytest.raises(CorruptPayloadError):
            use((wrong, values), spec, ops)
    with pytest.raises(CorruptPayloadError):
        codec.accumulate_(ops.zeros((10, 10), "float32"), (wrong, values), spec, ops)


def test_a_position_beyond_a_partial_chunk_is_refused(library: Library) -> None:
    """101 elements in chunks of 10: the last chunk has one element, at place 0."""
    x = library.array(normal(1, shape=(101,)))
    ops, codec = ops_of(x), TopK(0.1, "chunked")
    positions, values = codec.encode(x, ops)
    assert positions.tolist()[-1] == 0
    with pytest.raises(CorruptPayloadError):
        codec.decode((positions + (ops.arange(11, ops.dtype(positions)) == 10), values), Spec((101,)), ops)


# --- how many and which ---


@pytest.mark.parametrize(
    ("ratio", "size", "count"),
    [(0.01, 100, 1), (0.07, 100, 7), (0.01, 101, 2), (0.001, 5, 1), (1.0, 13, 13), (0.5, 1, 1), (0.1, 0, 0)],
)
def test_how_many(ratio: float, size: int, count: int) -> None:
    assert count_of(ratio, size) == count


def test_chunks_are_of_one_over_the_ratio() -> None:
    assert [chunk_of(ratio) for ratio in (1.0, 0.5, 0.3, 0.1, 0.07, 0.01, 0.001)] == [1, 2, 4, 10, 15, 100, 1000]


@given(size=st.integers(1, 60), ratio=st.floats(0.01, 1.0), seed=st.integers(0, 99))
@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_exact_is_top_k(name: str, size: int, ratio: float, seed: int) -> None:
    x = normal(seed, shape=(size,))
    found = chosen_by(TopK(ratio), Library(name).array(x, "float64"))
    assert found == sorted(top_k(x, count_of(ratio, size)))


@given(size=st.integers(4096, 6000), count=st.integers(1, 300), seed=st.integers(0, 99))
@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_selection_in_two_stages_is_exact(name: str, size: int, count: int, seed: int) -> None:
    """Also with large elements side by side, and at both ends, where they share groups or are in none."""
    magnitudes = np.abs(normal(seed, shape=(size,)))
    magnitudes[:40] += 3.0
    magnitudes[-40:] += 3.0
    x = Library(name).array(magnitudes, "float64")
    found = largest(x, count, ops_of(x)).tolist()
    assert found == sorted(top_k(magnitudes, count))


def test_selection_in_two_stages_finds_nan_and_infinities(library: Library) -> None:
    magnitudes = np.abs(normal(3, shape=(5000,)))
    bad = [0, 17, 18, 2500, 4999]
    magnitudes[bad] = [np.nan, np.inf, np.nan, np.inf, np.nan]
    x = library.array(magnitudes)
    assert largest(x, 5, ops_of(x)).tolist() == bad
    assert set(bad) < set(largest(x, 50, ops_of(x)).tolist())


def test_ties_are_broken_in_some_way_but_only_among_equals(library: Library) -> None:
    for size in (90, 9000):
        values = np.repeat([3.0, -3.0, 1.0], size // 3)
        x = library.array(values)
        found = largest(ops_of(x).abs(x), size // 2, ops_of(x)).tolist()
        assert len(set(found)) == size // 2
        assert all(abs(values[i]) == 3.0 for i in found)


@given(size=st.integers(1, 60), chunk=st.integers(1, 70), seed=st.integers(0, 99))
@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_chunked_is_the_largest_of_every_chunk(name: str, size: int, chunk: int, seed: int) -> None:
    x = np.abs(normal(seed, shape=(size,)))
    expected = [int(np.argmax(x[start : start + chunk])) for start in range(0, size, chunk)]
    array = Library(name).array(x, "float64")
    assert largest_of_chunks(array, chunk, ops_of(array)).tolist() == expected


# --- the codec ---


@pytest.mark.parametrize("selection", ["exact", "chunked"])
@pytest.mark.parametrize("shape", [(), (1,), (7,), (12, 9), (3, 5, 7), (70, 80)], ids=str)
def test_it_carries_what_it_says_and_nothing_else(library: Library, selection: Any, shape: tuple[int, ...]) -> None:
    codec = TopK(0.2, selection)
    for dtype in library.dtypes:
        values = normal(4, shape=shape)
        x = library.array(values, dtype)
        before = bits(x)
        ops, spec = ops_of(x), Spec(shape, dtype)
        parts = codec.encode(x, ops, ("w", 0, 0))
        assert bits(x) == before
        assert [(part.shape[0], dtype_of(part)) for part in parts] == list(codec.payload(spec))
        kept = random_k(wide(x).reshape(-1), codec.positions(parts, spec, ops).tolist()).reshape(shape)
        back = codec.decode(parts, spec, ops)
        assert dtype_of(back) == dtype
        assert_close(back, kept, 0.0)
        total = ops.zeros(shape, spec.wide.dtype) + 2.0
        assert_close(codec.accumulate_(total, parts, spec, ops), kept + 2.0, 2e-7)


def test_position_bytes() -> None:
    """1 byte for up to 256 elements, 2 up to 32768, else 4; chunks of up to 256 always 1."""
    assert TopK(0.1).payload(Spec((16, 16))) == ((26, "uint8"), (26, "float32"))
    assert TopK(0.1).payload(Spec((100, 100))) == ((1000, "int16"), (1000, "float32"))
    assert TopK(0.1).payload(Spec((200, 200), "float64")) == ((4000, "int32"), (4000, "float64"))
    assert TopK(0.01, "chunked").payload(Spec((1000, 1000), "float16")) == ((10000, "uint8"), (10000, "float32"))
    assert TopK(0.001, "chunked").payload(Spec((1000, 1000))) == ((1000, "int16"), (1000, "float32"))


def test_vectors_and_small_tensors_travel_dense() -> None:
    for kind in (TopK, RandomK, RandomBlock):
        assert [kind(min_size=10).compresses(Spec(s)) for s in [(100,), (), (3, 3), (2, 5)]] == [False] * 3 + [True]


def test_shards_of_different_sizes_agree_on_integers(library: Library) -> None:
    """Shards of 257 elements need int16 for positions, the last one, of 254 to 256, only uint8."""
    for world, size in ((2, 513), (3, 769), (4, 1025)):
        own = [{"w": library.array(normal(rank, shape=(1, size)))} for rank in range(world)]
        means = Simulator(TwoWay(TopK(1.0, min_size=0)), world, allow_larger=True).step(own)
        assert_close(means[0]["w"], average([wide(x["w"]) for x in own]), 1e-6)
        assert len({bits(mean["w"]) for mean in means}) == 1


# --- the methods against the papers ---


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
    assert inner == Schedule(tuple((s, AllGather(TopK(r))) for s, r in [(0, 0.25), (3, 0.0625), (6, 0.015625), (9, 0.01)]))


# --- random positions ---


@pytest.mark.parametrize("kind", [RandomK, RandomBlock])
def test_draws_depend_on_seed_name_and_step_alone(kind: Any) -> None:
    def draw(seed: int, name: str, step: int, rank: int = 0) -> list[int]:
        return kind(0.1, seed).draw(11, Context(OPS, Spec((12, 9)), name, step, rank, 4)).tolist()  # type: ignore[no-any-return]

    assert draw(0, "w", 3, rank=0) == draw(0, "w", 3, rank=3)
    different = [draw(0, "w", 3), draw(1, "w", 3), draw(0, "v", 3), draw(0, "w", 4)]
    assert len({tuple(d) for d in different}) == 4


def test_a_block_goes_on_from_the_start_past_the_end() -> None:
    starts = set()
    for step in range(200):
        drawn = RandomBlock(0.4).draw(4, Context(OPS, Spec((2, 5)), "w", step, 0, 1)).tolist()
        assert drawn == [(drawn[0] + i) % 10 for i in range(4)]
        starts.add(drawn[0])
    assert starts == set(range(10))


@pytest.mark.parametrize("kind", [RandomK, RandomBlock])
def test_every_element_is_drawn_equally_often(kind: Any) -> None:
    counts = np.zeros(20)
    for step in range(2000):
        counts[kind(0.25).draw(5, Context(OPS, Spec((4, 5)), "w", step, 0, 1))] += 1
    assert np.abs(counts - 500).max() < 5 * np.sqrt(2000 * 0.25 * 0.75)


@pytest.mark.parametrize("kind", [RandomK, RandomBlock])
def test_shared_positions_are_linear_and_send_values_only(library: Library, kind: Any, world_size: int) -> None:
    operator = kind(0.1, min_size=0)
    many, one = Simulator(operator, world_size), Simulator(operator, 1)
    for step in range(3):
        everyone = gradients(world_size, step)
        mean = many.step(library.arrays(everyone, "float64"))[0]["w"]
        alone = one.step(library.arrays([{"w": average([own["w"] for own in everyone])}], "float64"))[0]["w"]
        assert np.count_nonzero(wide(mean)) == 11
        assert_close(mean, alone, 1e-13)
    assert operator.wire_bytes(Spec((12, 9)), 4) == 2 * 3 * 11


# --- clipping ---


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


# --- what is not finite is seen ---


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("operator", [RandomK(0.01, min_size=0), RandomBlock(0.01, min_size=0)], ids=repr)
def test_elements_that_are_not_sent_are_seen_if_not_finite(library: Library, operator: Any, bad: float) -> None:
    for step in range(3):
        everyone = gradients(2, step)
        everyone[1]["w"][step, 7] = bad
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            means = Simulator(operator, 2).step(library.arrays(everyone))
        assert not any(np.isfinite(wide(mean["w"])).all() for mean in means)


def test_large_finite_numbers_raise_no_alarm(library: Library) -> None:
    x = library.array(np.full(1000, 3e38))
    assert float(alarm(x, ops_of(x))) == 0.0


# --- what wrappers are told ---


@pytest.mark.parametrize("operator", [AllGather(TopK(0.1)), RandomK(0.1), RandomBlock(0.1)], ids=repr)
def test_what_was_sent_is_told(library: Library, operator: Any) -> None:
    """The positions, of which the rest has zeros, all else being as it was; and no rest where nobody keeps it."""
    values = normal(6)
    spec = Spec((12, 9), "float64")
    ops = ops_of(library.array(0.0))
    context = Context(ops, spec, "w", 0, 0, 1, feedback=True)
    told, silent = (
        lockstep([operator.exchange(library.array(values, "float64"), {}, replace(context, feedback=keep))])[0][0]
        for keep in (True, False)
    )
    sent = sorted(told.positions.tolist())
    assert len(sent) == 11
    assert_close(wide(told.mean).reshape(-1), random_k(values.reshape(-1), sent), 0.0)
    assert_close(told.rest, values - wide(told.mean), 0.0)
    assert silent.rest is None and sorted(silent.positions.tolist()) == sent


@pytest.mark.parametrize(
    "make",
    [
        lambda: TopK(0.0),
        lambda: TopK(1.5),
        lambda: TopK(selection="sorted"),  # type: ignore[arg-type]
        lambda: TopK(min_size=-1),
        lambda: RandomK(2.0),
        lambda: RandomBlock(seed=-1),
        lambda: MemSGD(selection="top"),  # type: ignore[arg-type]
        lambda: MemSGD(0.0, "random"),
        lambda: MemSGD(-1.0),
        lambda: DGC(0.0),
        lambda: DGC(momentum=1.0),
        lambda: DGC(clip=0.0),
        lambda: DGC(warmup_steps=-1),
        lambda: LocalClip(Identity(), -1.0),
        lambda: LocalClip(Identity(), np.inf),
    ],
)
def test_settings_out_of_range(make: Any) -> None:
    with pytest.raises(ConfigurationError):
        make()


def test_torch_and_numpy_choose_alike() -> None:
    for shape in ((40, 50), (90, 100)):
        x = normal(2, shape=shape)
        for selection in ("exact", "chunked"):
            codec = TopK(0.03, selection)
            assert chosen_by(codec, NUMPY.array(x)) == chosen_by(codec, TORCH.array(x))
