"""Law: what is worked on piece by piece is bit for bit what it is at once, in every library."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from cases import NUMPY, TORCH, Library, assert_close, bits, wide
from oracles import quantisers as oracle

from hvd_compress import QSGD, BlockSign, Codec, Natural, OneBit, Spec, TernGrad, TopK
from hvd_compress.ops import ops_of
from hvd_compress.ops.random import ShortStream

PIECE = 2**16
SIZES = [1, 8, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 12345]
CODECS: list[Codec] = [
    *(BlockSign(), BlockSign(block=256), BlockSign(block=100), BlockSign(scaled=False)),
    *(OneBit(), Natural()),
    *(
        QSGD(),
        QSGD(levels=3, bucket=37, norm="max"),
        QSGD(levels=127, bucket=PIECE + 3),
        TernGrad(),
        TernGrad(clip=0.0),
    ),
    *(TopK(0.01), TopK(0.01, "chunked"), TopK(0.01, "sampled"), TopK(0.3, "chunked")),
]


@pytest.fixture(params=[PIECE, 2**40], ids=["pieces", "one"])
def piece(request: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    return set_piece(request.param, monkeypatch)


def set_piece(length: int, monkeypatch: pytest.MonkeyPatch) -> int:
    for module in ("base", "pieces"):
        monkeypatch.setattr(f"hvd_compress.ops.{module}.PIECE", length)
    return length


def numbers(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_codecs_do_not_see_the_pieces(
    library: Library, codec: Codec, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts, what is decoded, in place or not, what is added up and what is left."""
    x, start = numbers(size), numbers(size, 1)
    spec = Spec((size,))

    def made(length: int) -> list[bytes]:
        set_piece(length, monkeypatch)
        array = library.array(x)
        ops = ops_of(array)
        parts = codec.encode(array, ops, ("w", size))
        assert tuple((ops.shape(part)[0], ops.dtype(part)) for part in parts) == codec.payload(spec)
        decoded = codec.decode(parts, spec, ops)
        written = codec.decode_to_(library.array(start), parts, spec, ops)
        total = codec.accumulate_(library.array(start), parts, spec, ops)
        rest = codec.subtract_(library.array(start), parts, spec, ops)
        assert bits(written) == bits(decoded)
        assert_close(wide(total) + wide(rest), 2.0 * start, 1e-6)
        return [bits(made) for made in (*parts, decoded, total, rest)]

    assert made(PIECE) == made(2**40)


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_libraries_send_the_same_codes(library: Library, codec: Codec) -> None:
    """But where an element lies within a rounding error of a threshold: in fewer than one of ten thousand bytes."""
    x = numbers(SIZES[-1])
    mine, numpys = (np.frombuffer(bits(codec.encode(a, ops_of(a), ("w",))[0]), np.uint8) for a in (library.array(x), x))
    assert np.count_nonzero(mine != numpys) <= 1e-4 * mine.size


@pytest.mark.parametrize("width", range(1, 9))
@pytest.mark.parametrize("size", [1, 7, 8, 9, PIECE - 1, PIECE + 1])
def test_packed_numbers_of_any_length(library: Library, width: int, size: int) -> None:
    x = np.random.default_rng(width).integers(0, 2**width, size).astype(np.uint8)
    array = library.array(x, "uint8")
    ops = ops_of(array)
    packed = ops.pack(array, width)
    short = min(size, 999)
    assert bits(packed)[: short // 8 * width] == oracle.pack(x[:short].tolist(), width)[: short // 8 * width]
    assert bits(ops.unpack(packed, width, size)) == x.tobytes()
    # From the middle of a larger array, where no wider word may start.
    whole = library.array(np.concatenate([[1, 2, 3], x]), "uint8")
    assert bits(ops.pack(whole[3:], width)) == bits(packed)


def test_thresholds_are_those_of_sfc64(library: Library) -> None:
    """Written down once more: SHA-256 of the key, SeedSequence, SFC64, four numbers a word; (k + 1/2) / 2^16."""
    key = ("layer.weight", 3, 1)
    seed = int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:16], "little")
    words = [int(word) for word in np.random.SFC64(np.random.SeedSequence(seed)).random_raw(10)]
    shorts = [word >> 16 * i & 0xFFFF for word in words for i in range(4)]
    # The upper half of 0 .. 2^16 - 1 stands for negative numbers, which are the lower ones.
    expected = [((k + 2**15) % 2**16 + 0.5) / 2**16 for k in shorts]
    for dtype in ("float32", "float64"):
        assert wide(ops_of(library.array(0.0)).thresholds(dtype, key)(0, 40)).tolist() == expected


def test_a_stream_is_the_same_however_it_is_cut() -> None:
    whole = ShortStream(("w", 1))(0, 1000)
    stream = ShortStream(("w", 1))
    for start, stop in [(0, 8), (8, 64), (64, 67), (67, 70), (5, 6), (3, 3), (900, 1000), (0, 1000)]:
        assert np.array_equal(stream(start, stop), whole[start:stop])
    assert not np.array_equal(ShortStream(("w", 2))(0, 1000), whole)


def test_thresholds_round_without_bias(library: Library) -> None:
    """Every one of 2^16 as likely: mean 1/2, variance 1/12, whole numbers stay, and a fraction rises as often."""
    ops = ops_of(library.array(0.0))
    u = wide(ops.thresholds("float32", ("w",))(0, 100_000))
    assert 0.0 < u.min() < u.max() < 1.0
    assert np.array_equal(u * 2**17 % 2, np.ones(u.size))
    assert abs(u.mean() - 0.5) < 5 * np.sqrt(1 / 12 / u.size)
    assert abs(u.var() - 1 / 12) < 5 * np.sqrt(1 / 180 / u.size)
    for whole in range(-127, 128):
        assert np.array_equal(np.floor(np.float32(whole) + np.float32([u.min(), u.max()])), [whole, whole])
    assert np.float32(127) + np.float32(1 - 2.0**-17) < 128
    lag = np.corrcoef(u[:-1], u[1:])[0, 1]
    assert abs(lag) < 5 / np.sqrt(u.size)


@pytest.mark.mutable
@pytest.mark.parametrize("change", ["put", "add"])
def test_it_is_done_in_place(library: Library, piece: int, change: str) -> None:
    """In the memory that was donated, in any shape; of another layout it is another array."""
    size = 2 * PIECE + 6
    x = library.array(np.ones((2, size // 2)))
    ops = ops_of(x)

    def more(start: int, stop: int) -> Any:
        return ops.zeros((stop - start,), "float32") + 2.0

    for array, same in ((x, True), (library.array(np.ones((size // 2, 2))).T, False)):
        found = ops.put_by_pieces_(array, more, 8) if change == "put" else ops.add_by_pieces_(array, more, 8, -1.0)
        assert tuple(found.shape) == (2, size // 2)
        assert np.array_equal(wide(found), np.full((2, size // 2), 2.0 if change == "put" else -1.0))
        if same:
            assert np.array_equal(wide(array), wide(found))


@pytest.mark.mutable
def test_parts_are_changed_where_they_are(library: Library) -> None:
    x = library.array(np.arange(6))
    ops = ops_of(x)
    found = ops.change_parts_(x, [2, 0, 3, 1], lambda i, part: ops.scale_(part, 2.0) if i == 2 else part + 10.0)
    assert wide(found).tolist() == wide(x).tolist() == [10, 11, 4, 6, 8, 15]


@pytest.mark.parametrize("library", [NUMPY, TORCH], ids=["numpy", "torch"])
@pytest.mark.parametrize("shape", [(2**21,), (2**11, 2**10), (0, 3), (3,)], ids=str)
def test_large_arrays_are_like_small_ones(library: Library, shape: tuple[int, ...]) -> None:
    """Their memory comes from elsewhere."""
    x = library.array(np.ones(shape))
    ops = ops_of(x)
    zeros, copy = ops.zeros(shape, "float32"), ops.copy(x)
    assert tuple(zeros.shape) == tuple(copy.shape) == shape
    assert not wide(zeros).any() and wide(copy).all()
    ops.scale_(copy, 3.0)
    ops.add_(zeros, x)
    assert wide(x).all() and np.array_equal(wide(zeros), wide(x))
    assert ops.zeros((4,), "bfloat16").dtype == ops.zeros((2**22,), "bfloat16").dtype if library is TORCH else True
