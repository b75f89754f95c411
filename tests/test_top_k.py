"""Top-k: what is chosen, what travels, and that nothing else of a gradient is touched."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cases import NUMPY, TORCH, Library, assert_close, bits, dtype_of, whole, wide
from hypothesis import given
from hypothesis import strategies as st
from oracles.averaging import average
from oracles.collectives import lockstep
from oracles.sparsifiers import random_k, top_k

from hvd_compress import (
    DGC,
    AllGather,
    ConfigurationError,
    CorruptPayloadError,
    Identity,
    LocalClip,
    MemSGD,
    RandomBlock,
    RandomK,
    Simulator,
    Spec,
    TopK,
    TwoWay,
)
from hvd_compress.codecs.positions import from_wire, index_dtype, to_wire
from hvd_compress.codecs.selection import chunk_of, count_of, largest_of_chunks
from hvd_compress.contract import Context
from hvd_compress.ops import ops_of
from hvd_compress.ops.largest import by_groups
from hvd_compress.ops.pieces import PIECE


def normal(*key: int, shape: Any = (12, 9)) -> np.ndarray:
    return np.random.default_rng([31, *key]).standard_normal(shape)


def chosen_by(codec: TopK, x: Any) -> list[int]:
    ops = ops_of(x)
    spec = Spec(ops.shape(x), dtype_of(x))
    return [int(i) for i in ops.to_numpy(codec.positions(codec.encode(x, ops), spec, ops))]


def test_positions_take_the_smallest_integers_that_hold_them(library: Library) -> None:
    ops = ops_of(library.array(0.0))
    widths = {1: "uint8", 256: "uint8", 257: "int16", 32768: "int16", 32769: "int32", 2**31: "int32"}
    for size, dtype in widths.items():
        assert index_dtype(size) == dtype
        ends = ops.from_numpy(np.array([0, size - 1]))
        sent = to_wire(ends, size, ops)
        assert ops.dtype(sent) == dtype
        back = from_wire(sent, size, ops)
        assert ops.dtype(back) == "int64" and whole(back) == [0, size - 1]


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
    assert whole(positions)[-1] == 0
    with pytest.raises(CorruptPayloadError):
        moved = positions + ops.cast(ops.arange(11) == 10, ops.dtype(positions))
        codec.decode((moved, values), Spec((101,)), ops)


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
    found = whole(by_groups(x, count, ops_of(x)))
    assert found == sorted(top_k(magnitudes, count))


def test_selection_in_two_stages_finds_nan_and_infinities(library: Library) -> None:
    magnitudes = np.abs(normal(3, shape=(5000,)))
    bad = [0, 17, 18, 2500, 4999]
    magnitudes[bad] = [np.nan, np.inf, np.nan, np.inf, np.nan]
    x = library.array(magnitudes)
    for found in (by_groups(x, 5, ops_of(x)), ops_of(x).largest(-x, 5)):
        assert whole(found) == bad
    for found in (by_groups(x, 50, ops_of(x)), ops_of(x).largest(-x, 50)):
        assert set(bad) < set(whole(found))


def test_ties_are_broken_in_some_way_but_only_among_equals(library: Library) -> None:
    for size in (90, 9000):
        values = np.repeat([3.0, -3.0, 1.0], size // 3)
        x = library.array(values)
        found = whole(ops_of(x).largest(x, size // 2))
        assert len(set(found)) == size // 2
        assert all(abs(values[i]) == 3.0 for i in found)


KINDS_OF_NUMBERS = {
    "normal": lambda x: x,
    "mostly zero": lambda x: np.where(x > 1.5, x, 0.0),
    "fewer than asked for": lambda x: np.where(x > 3.5, x, -0.0),
    "equal": lambda x: np.sign(x),
    "of few values": lambda x: np.round(x),
    "large at the end": lambda x: np.where(np.arange(x.size) < 0.99 * x.size, 1e-3 * x, x),
    "not all finite": lambda x: np.where(x > 3.3, np.nan, np.where(x < -3.3, np.inf, x)),
    "not a number": lambda x: x * np.nan,
    "infinite": lambda x: x * np.inf,
}


@pytest.mark.parametrize("kind", KINDS_OF_NUMBERS)
@pytest.mark.parametrize("size", [2**16 - 1, 2**16 + 1, 300_000])
@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_selection_by_a_threshold_is_exact_and_takes_the_first_of_equals(name: str, size: int, kind: str) -> None:
    """Whatever the sample says, and also where few numbers, or all, are equal; NaN counts as infinite."""
    x = KINDS_OF_NUMBERS[kind](normal(7, shape=(size,))).astype(np.float32)
    order = np.argsort(-np.where(np.isnan(x), np.inf, np.abs(x)), kind="stable")
    array = Library(name).array(x)
    for count in (0, 1, size // 1000, size // 100, size // 12, size // 2, size - 1, size):
        assert whole(ops_of(array).largest(array, count)) == sorted(order[:count].tolist()), count


@pytest.mark.parametrize("rest", [-1, 0, 1])
@pytest.mark.parametrize("chunk", [7, 64, 100, 2**16, PIECE + 3])
def test_chunks_are_those_of_the_whole_however_many_there_are(library: Library, chunk: int, rest: int) -> None:
    """Of equal numbers the first is chosen."""
    size = (2 * PIECE // chunk + 1) * chunk + rest
    x = np.round(4 * normal(8, shape=(size,)))
    expected = [int(np.argmax(np.abs(x[start : start + chunk]))) for start in range(0, size, chunk)]
    array = library.array(x)
    assert whole(largest_of_chunks(array, chunk, ops_of(array))) == expected


@given(size=st.integers(1, 60), chunk=st.integers(1, 70), seed=st.integers(0, 99))
@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_chunked_is_the_largest_of_every_chunk(name: str, size: int, chunk: int, seed: int) -> None:
    x = np.abs(normal(seed, shape=(size,)))
    expected = [int(np.argmax(x[start : start + chunk])) for start in range(0, size, chunk)]
    array = Library(name).array(x, "float64")
    assert whole(largest_of_chunks(array, chunk, ops_of(array))) == expected


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
        kept = random_k(wide(x).reshape(-1), whole(codec.positions(parts, spec, ops))).reshape(shape)
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
    sent = sorted(whole(told.positions))
    assert len(sent) == 11
    assert_close(wide(told.mean).reshape(-1), random_k(values.reshape(-1), sent), 0.0)
    assert_close(told.rest, values - wide(told.mean), 0.0)
    assert silent.rest is None and sorted(whole(silent.positions)) == sent


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
