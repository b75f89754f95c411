"""Kernels at the end of more than 2^31 elements, interpreted; run by `test_triton_kernels`, in a process apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from triton.runtime import interpreter

from hvd_compress.ops import Coding
from hvd_compress.ops.triton_kernels import TritonKernels, launcher, launching, restorer

# Every kernel has 1024 numbers a program here; the last one has 16.
SIZE, PROGRAMS = 2**31 + 1024 + 16, 2**21 + 2
KERNELS = TritonKernels()


@pytest.fixture(autouse=True)
def last_program_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all programs run the last one; memory that no program touches is never taken."""

    def place(builder: Any, axis: int) -> Any:
        return interpreter.TensorHandle(np.array([PROGRAMS - 1 if axis == 0 else 0], np.int32), interpreter.tl.int32)

    def launch(kernel: Any, programs: int, *arguments: Any, **options: Any) -> None:
        assert programs == PROGRAMS
        launching.launch(kernel, 1, *arguments, **options)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_get_program_id", place)
    for module in (launcher, restorer):
        monkeypatch.setattr(module, "launch", launch)


def zeros(size: int, dtype: Any) -> torch.Tensor:
    return torch.from_numpy(np.zeros(size, dtype))


def test_packing() -> None:
    x = zeros(SIZE, np.uint8)
    x[-16:] = torch.arange(16) % 8
    packed = KERNELS.pack(x, 3)
    assert packed[-6:].tolist() == [0b10001000, 0b11000110, 0b11111010] * 2
    assert KERNELS.unpack(packed, 3, SIZE)[-16:].tolist() == x[-16:].tolist()


def test_signs_and_sums() -> None:
    x = zeros(SIZE, np.float16)
    x[-16:] = torch.tensor([1.0, -1.0] * 8)
    bits, sums = KERNELS.signs_and_sums(x, 1024, "float32", True)
    assert bits[-2:].tolist() == [0b01010101] * 2
    assert sums[-1] == 16.0


def test_the_largest_of_every_row() -> None:
    x = zeros(SIZE // 16 * 16, np.float16)
    x[-1] = -2.0
    assert KERNELS.argmax_abs(x.view(-1, 16))[-1] == 15


def test_what_is_not_finite_becomes_zero() -> None:
    x = zeros(SIZE, np.float16)
    x[-2:] = torch.tensor([3.0, torch.inf])
    assert KERNELS.finite_or_zero_(x)[-2:].tolist() == [3.0, 0.0]


@pytest.mark.parametrize("bucket", [0, 16, 2**31 + 1024])
def test_restored_and_added(bucket: int) -> None:
    """With one step for all, with many, and with buckets that are themselves that long."""
    packed = zeros(-(-SIZE // 8), np.uint8)
    packed[-2:] = 0b01010101
    steps = zeros(-(-SIZE // bucket) if bucket else 1, np.float32)
    steps[-1] = 3.0
    fused = KERNELS.restorer(packed, steps, Coding(1, 1, bucket, 2), "float16")
    assert fused(0, SIZE)[-16:].tolist() == [3.0, -3.0] * 8
    x = zeros(SIZE, np.float16)
    assert fused.add_to_(x, -1.0)[-16:].tolist() == [-3.0, 3.0] * 8
