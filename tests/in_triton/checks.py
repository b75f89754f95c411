"""Kernels against what torch does with one operation after another; run by `test_triton_kernels`, in a process apart.

On a processor Triton interprets them, with TRITON_INTERPRET=1 from before it is imported; with
HVD_COMPRESS_TEST_DEVICE=cuda they are compiled and run on a device. The interpreter cuts float32 to bfloat16 where
devices round, and knows no subnormal bfloat16: on a processor there are
none, and what becomes bfloat16 needs no rounding.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

import hvd_compress.ops
from hvd_compress import (
    QSGD,
    BlockSign,
    Codec,
    CountSketch,
    DistEFSGD,
    EFSignSGD,
    ErrorFeedback,
    MemSGD,
    Natural,
    OneBit,
    ScaleCom,
    Simulator,
    SketchedSGD,
    Spec,
    TernGrad,
    TopK,
)
from hvd_compress.operators.sketch.rotation import RotationHashes
from hvd_compress.ops import Coding, TorchOps
from hvd_compress.ops.kernels import SWITCH, kernels_for
from hvd_compress.ops.triton_kernels import TritonKernels, launcher, launching, restorer

DEVICE = torch.device(os.environ.get("HVD_COMPRESS_TEST_DEVICE", "cpu"))
INTERPRETED = DEVICE.type == "cpu"
DTYPES = ["float16", "bfloat16", "float32", "float64"]
EACH_DTYPE = pytest.mark.parametrize("dtype", DTYPES)
# Around whole bytes, whole programs, and several of them.
SIZES = [1, 9, 1024, 2049]
PLAIN, FUSED = TorchOps(DEVICE), TorchOps(DEVICE, TritonKernels())
CODINGS = [Coding(1, 1, stride=2), Coding(2, 1), Coding(3, 3), Coding(5, 15), Coding(7, 63), Coding(8, 127)]


# The interpreter works with NumPy, which warns of what devices do in silence.
pytestmark = [
    pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:divide by zero encountered:RuntimeWarning"),
]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a processor too all is worked on at once, by torch, as on a device."""
    monkeypatch.setattr(TorchOps, "piecewise", False)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the kernels that are started, by name."""
    counts: Counter[str] = Counter()

    def counting(kernel: Any, *arguments: Any, **options: Any) -> None:
        counts[kernel.fn.__name__] += 1
        launching.launch(kernel, *arguments, **options)

    for module in (launcher, restorer):
        monkeypatch.setattr(module, "launch", counting)
    return counts


def test_who_asks_gets_them_on_cuda_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    monkeypatch.setenv(SWITCH, "1")
    assert kernels_for(cpu) is None
    kernels = kernels_for(cuda)
    assert isinstance(kernels, TritonKernels)
    assert TorchOps(cpu, kernels) != TorchOps(cpu)
    assert TorchOps(cpu, kernels) == TorchOps(cpu, kernels)


def numbers(size: int, dtype: str = "float32", seed: int = 0, special: bool = False) -> torch.Tensor:
    random = np.random.default_rng([seed, size])
    x = random.standard_normal(size)
    if special:
        places = random.permutation(size)[: size // 2]
        subnormal = 0.0 if INTERPRETED and dtype == "bfloat16" else torch.finfo(getattr(torch, dtype)).tiny / 4
        values = itertools.cycle([np.nan, np.inf, -np.inf, -0.0, 0.0, np.nan, subnormal])
        for place, value in zip(places, values, strict=False):
            x[place] = value
    return torch.tensor(x).to(getattr(torch, dtype)).to(DEVICE)


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Assert the same numbers, NaN for NaN, of the same type and shape."""
    torch.testing.assert_close(found, expected, rtol=0.0, atol=0.0, equal_nan=True)


@pytest.mark.parametrize("width", range(1, 8))
def test_packing_and_unpacking(width: int) -> None:
    for size in [0, *SIZES]:
        x = torch.tensor(np.random.default_rng(size).integers(0, 2**width, size).astype(np.uint8)).to(DEVICE)
        packed = PLAIN.pack(x, width)
        assert_same(FUSED.pack(x, width), packed)
        assert_same(FUSED.unpack(packed, width, size), x)
        assert_same(FUSED.unpack(packed, width, size // 2), x[: size // 2])
        twice = torch.stack([x, x], dim=1)
        assert_same(FUSED.pack(twice[:, 0], width), packed)


@EACH_DTYPE
@pytest.mark.parametrize("width", [1, 8, 100, 1001, 4096])
@pytest.mark.parametrize("magnitudes", [True, False])
def test_signs_and_sums(dtype: str, width: int, magnitudes: bool) -> None:
    """NaN has the sign -, zero of any sign +; a sum of what is not finite is not."""
    wide = "float64" if dtype == "float64" else "float32"
    for size in [0, *SIZES]:
        for special in (False, True):
            x = numbers(size, dtype, special=special)
            bits, sums = FUSED.signs_and_sums(x, width, wide, magnitudes)
            expected_bits, expected_sums = PLAIN.signs_and_sums(x, width, wide, magnitudes)
            assert_same(bits, expected_bits)
            torch.testing.assert_close(sums, expected_sums, rtol=1e-5, atol=0.0, equal_nan=True)
            assert sums.dtype == expected_sums.dtype


@EACH_DTYPE
@pytest.mark.parametrize("coding", CODINGS, ids=lambda coding: f"{coding.width}bit")
@pytest.mark.parametrize("bucket", [0, 1, 100, 4096])
def test_restored_and_added(dtype: str, coding: Coding, bucket: int) -> None:
    """Whole, from any bucket on, added and subtracted, also to another element type; signs of zeros too."""
    coding = Coding(coding.width, coding.levels, bucket, coding.stride)
    wide = "float64" if dtype == "float64" else "float32"
    for size in SIZES:
        top = 2 * coding.levels // coding.stride
        codes = torch.tensor(np.random.default_rng(size).integers(0, top + 1, size).astype(np.uint8)).to(DEVICE)
        packed = PLAIN.pack(codes, coding.width)
        steps = numbers(-(-size // min(bucket, size)) if bucket else 1, wide, special=True)
        if dtype == "bfloat16" and INTERPRETED:
            steps = torch.exp2(steps.nan_to_num().clamp(-3, 3).round())
        plain, fused = PLAIN.restorer(packed, steps, coding, dtype), FUSED.restorer(packed, steps, coding, dtype)
        assert_same(fused(0, size), plain(0, size))
        assert torch.equal(torch.signbit(fused(0, size).nan_to_num()), torch.signbit(plain(0, size).nan_to_num()))
        start = 8 * (bucket or 1)
        if start < size:
            assert_same(fused(start, size), plain(start, size))
        for other in {wide, "float32"}:
            for scale in (1.0, -1.0):
                x = numbers(size, other, seed=1)
                expected = PLAIN.add_by_pieces_(x.clone(), plain, 8, scale)
                assert_same(FUSED.add_by_pieces_(x, fused, 8, scale), expected)
                assert_same(x, expected)


def test_adding_to_what_is_not_row_major_or_by_another_scale(called: Counter[str]) -> None:
    packed, steps = torch.full((15,), 0b10110010, dtype=torch.uint8, device=DEVICE), numbers(2)
    coding = Coding(1, 1, bucket=64, stride=2)
    plain, fused = PLAIN.restorer(packed, steps, coding, "float32"), FUSED.restorer(packed, steps, coding, "float32")
    turned, flat = numbers(120).view(10, 12).T, numbers(120)
    for x, scale in ((turned, 1.0), (flat, 0.5)):
        assert_same(FUSED.add_by_pieces_(x.clone(), fused, 8, scale), PLAIN.add_by_pieces_(x.clone(), plain, 8, scale))
    assert called == {"restore": 2}


@EACH_DTYPE
@pytest.mark.parametrize("width", [1, 3, 100, 1025, 2**14 + 1])
def test_the_largest_of_every_row(dtype: str, width: int) -> None:
    """NaN is largest, of equal ones the first."""
    for rows in (1, 30) if width < 1000 else (2,):
        x = numbers(rows * width, dtype, special=True)
        coarse = numbers(rows * width, dtype).round()
        finite = numbers(rows * width, dtype)
        for case in (x, coarse, finite, torch.ones_like(x)):
            assert_same(FUSED.argmax_abs(case.view(rows, width)), PLAIN.argmax_abs(case.view(rows, width)))
    turned = numbers(7 * width, dtype).view(width, 7).T
    assert_same(FUSED.argmax_abs(turned), PLAIN.argmax_abs(turned))


@pytest.mark.parametrize(("words", "dtype"), [(torch.int32, torch.float32), (torch.int64, torch.float64)], ids=str)
def test_the_first_nan_of_any_bits_is_largest(words: torch.dtype, dtype: torch.dtype) -> None:
    greatest = torch.iinfo(words).max
    bits = torch.tensor([[0, greatest - 1, greatest], [0, 0, greatest]], dtype=words, device=DEVICE)
    x = bits.view(dtype)
    assert x.isnan().sum() == 3
    assert FUSED.argmax_abs(x).tolist() == PLAIN.argmax_abs(x).tolist() == [1, 2]


@EACH_DTYPE
def test_what_is_not_finite_becomes_zero(dtype: str) -> None:
    for size in [0, *SIZES]:
        for special in (False, True):
            x = numbers(size, dtype, special=special)
            expected = PLAIN.finite_or_zero_(x.clone())
            assert_same(FUSED.finite_or_zero_(x), expected)
            assert_same(x, expected)
    turned = numbers(120, dtype, special=True).view(10, 12).T
    assert_same(FUSED.finite_or_zero_(turned.clone(memory_format=torch.preserve_format)), PLAIN.finite_or_zero_(turned))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("size", "rows", "columns"),
    [(1, 1, 1), (10, 1, 3), (300, 3, 300), (3000, 5, 700), (300, 9, 50), (9000, 3, 4097)],
)
def test_rotation_sketches(dtype: str, size: int, rows: int, columns: int, called: Counter[str]) -> None:
    """Tables to within rounding, or exactly where torch adds up block after block too; estimates exactly."""
    plain, fused = (RotationHashes(size, rows, columns, 1, ops) for ops in (PLAIN, FUSED))
    for special in (False, True):
        x = numbers(size, dtype, special=special)
        table = plain.sketch(x)
        close = 0.0 if columns >= 4096 else 1e-5 if dtype == "float32" else 1e-12
        torch.testing.assert_close(fused.sketch(x), table, rtol=close, atol=close, equal_nan=True)
        assert_same(fused.estimates(table), plain.estimates(table))
        memory = torch.empty_like(x)
        assert_same(fused.estimates(table, memory), plain.estimates(table))
        assert_same(memory, plain.estimates(table))
    assert called == {"turned_sums": 2 * -(-rows // 8), "turned_medians": 4}


@pytest.mark.parametrize(
    ("codec", "kernels"),
    [
        (BlockSign(), {"signs_and_sums", "restore", "add_restored"}),
        (BlockSign(block=256), {"signs_and_sums", "restore", "add_restored"}),
        (BlockSign(block=100), {"signs_and_sums", "restore", "add_restored"}),
        (BlockSign(scaled=False), {"signs_and_sums", "restore", "add_restored"}),
        (QSGD(), {"pack", "restore", "add_restored"}),
        (QSGD(levels=3, bucket=37, norm="max"), {"pack", "restore", "add_restored"}),
        (TernGrad(), {"pack", "restore", "add_restored"}),
        (OneBit(), {"pack", "unpack"}),
        (Natural(), {"pack", "unpack"}),
        (TopK(0.01, "chunked"), {"argmax_abs"}),
    ],
    ids=repr,
)
@EACH_DTYPE
def test_codecs(codec: Codec, kernels: set[str], dtype: str, called: Counter[str]) -> None:
    """What is sent, what is decoded, in place or not, what is added up and what is left."""
    for size in (0, 100, 2049):
        x, spec = numbers(size, dtype), Spec((size,), dtype)
        if not size and not isinstance(codec, BlockSign):
            continue
        expected, found = codec.encode(x, PLAIN, ("w",)), codec.encode(x, FUSED, ("w",))
        for mine, its in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, its, rtol=1e-5 if its.is_floating_point() else 0.0, atol=0.0)
        if dtype == "bfloat16" and INTERPRETED and isinstance(codec, QSGD | TernGrad):
            continue  # their products are rounded
        assert_same(codec.decode(expected, spec, FUSED), codec.decode(expected, spec, PLAIN))
        out = torch.empty_like(x)
        assert_same(codec.decode_to_(out, expected, spec, FUSED), codec.decode(expected, spec, PLAIN))
        for change in (codec.accumulate_, codec.subtract_):
            own = numbers(size, spec.wide.dtype, seed=1)
            assert_same(change(own.clone(), expected, spec, FUSED), change(own.clone(), expected, spec, PLAIN))
    assert kernels <= set(called) or (dtype == "bfloat16" and INTERPRETED and "pack" in called)


@pytest.mark.parametrize(
    ("compressor", "kernels"),
    [
        (ErrorFeedback(BlockSign(block=128)), {"signs_and_sums", "add_restored", "finite_or_zero"}),
        (EFSignSGD(), {"signs_and_sums", "add_restored", "finite_or_zero"}),
        (DistEFSGD(), {"signs_and_sums", "add_restored", "finite_or_zero"}),
        (ErrorFeedback(QSGD(levels=7)), {"pack", "add_restored", "finite_or_zero"}),
        (ErrorFeedback(TopK(0.02, "chunked")), {"argmax_abs", "finite_or_zero"}),
        (MemSGD(), {"finite_or_zero"}),
        (ScaleCom(), {"argmax_abs", "finite_or_zero"}),
        (ErrorFeedback(CountSketch(0.02, rows=3)), {"turned_sums", "turned_medians", "finite_or_zero"}),
        (SketchedSGD(0.02), {"turned_sums", "turned_medians"}),
    ],
    ids=repr,
)
def test_training(compressor: Any, kernels: set[str], called: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole steps of two workers, with a step between them whose gradient is not finite."""

    def means(ops: TorchOps) -> list[torch.Tensor]:
        monkeypatch.setattr(hvd_compress.ops, "_torch_ops_on", lambda device: ops)
        simulator = Simulator(compressor, 2, learning_rate=0.1, allow_larger=True)
        found = []
        for step in range(3):
            gradients = [{"w": numbers(60 * 50, seed=10 * step + rank).view(60, 50)} for rank in range(2)]
            if step == 1:
                gradients[0]["w"][3, 3] = np.inf
            found += [own["w"] for own in simulator.step(gradients)]
        return found

    expected = means(PLAIN)
    assert not called
    for mine, its in zip(means(FUSED), expected, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-5, equal_nan=True)
    assert kernels <= set(called)
