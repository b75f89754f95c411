"""Kernels compiled for CUDA devices, of which none need be there; run by `test_triton_kernels`, in a process apart.

What is compiled is what would be started: the launchers run, up to the start itself.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import JITFunction, driver

from hvd_compress.ops import Coding
from hvd_compress.ops.triton_kernels import TritonKernels

KERNELS = TritonKernels()
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
WIDE = [torch.float32, torch.float64]
EACH_FLOAT = pytest.mark.parametrize("dtype", FLOATS, ids=str)


class Device:
    """A device that code is made for and nothing is started on."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return self.capability

    def get_current_stream(self, device: int) -> int:
        return 0


@pytest.fixture(params=[80, 90], ids=["sm80", "sm90"])
def compiled(request: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Collect the assembly of kernels by name, after checking that machine code was made of it."""
    run = JITFunction.run
    made: dict[str, str] = {}

    def only_compile(self: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        kernel = run(self, *arguments, grid=grid, warmup=True, **options)
        assert kernel.asm["cubin"].startswith(b"\x7fELF")
        assert f"sm_{request.param}" in kernel.asm["ptx"]
        made[self.fn.__name__] = kernel.asm["ptx"]
        return kernel

    monkeypatch.setattr(JITFunction, "run", only_compile)
    driver.set_active(Device(request.param))
    return made


def ones(size: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.ones(size, dtype=dtype)


@pytest.mark.parametrize("width", range(1, 8))
def test_packing(compiled: dict[str, str], width: int) -> None:
    KERNELS.unpack(KERNELS.pack(ones(5000, torch.uint8), width), width, 5000)
    assert set(compiled) == {"pack", "unpack"}


@EACH_FLOAT
@pytest.mark.parametrize("width", [100, 4096])
@pytest.mark.parametrize("magnitudes", [True, False])
def test_signs_and_sums(compiled: dict[str, str], dtype: torch.dtype, width: int, magnitudes: bool) -> None:
    KERNELS.signs_and_sums(ones(5000, dtype), width, "float64" if dtype == torch.float64 else "float32", magnitudes)
    assert set(compiled) == {"signs_and_sums"}


@EACH_FLOAT
@pytest.mark.parametrize("coding", [Coding(1, 1, 100, 2), Coding(3, 3), Coding(8, 127, 1)], ids=str)
def test_restoring(compiled: dict[str, str], dtype: torch.dtype, coding: Coding) -> None:
    """What is added is rounded first: nothing is multiplied and added in one."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    packed = ones(5000, torch.uint8)
    for steps in {wide, dtype}:
        fused = KERNELS.restorer(packed, ones(5000, steps), coding, str(dtype).removeprefix("torch."))
        fused(0, 5000)
        fused.add_to_(ones(5000, wide), -1.0)
        for assembly in compiled.values():
            assert re.search(r"\bmul(\.rn)?\.f(32|64)", assembly)
            assert not re.search(r"\bfma\.", assembly)
    assert set(compiled) == {"restore", "add_restored"}


@EACH_FLOAT
@pytest.mark.parametrize("width", [3, 100, 5000])
def test_the_largest_of_every_row(compiled: dict[str, str], dtype: torch.dtype, width: int) -> None:
    KERNELS.argmax_abs(ones(3 * width, dtype).view(3, width))
    assert set(compiled) == {"argmax_abs"}


@EACH_FLOAT
def test_what_is_not_finite(compiled: dict[str, str], dtype: torch.dtype) -> None:
    KERNELS.finite_or_zero_(ones(5000, dtype))
    assert set(compiled) == {"finite_or_zero"}


@pytest.mark.parametrize("dtype", WIDE, ids=str)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (5, 100), (9, 5000)])
def test_rotation_sketches(compiled: dict[str, str], dtype: torch.dtype, rows: int, columns: int) -> None:
    size, signs = 5000, [ones(5000, torch.uint8) for _ in range(-(-rows // 8))]
    turns = torch.zeros((rows, -(-size // columns)), dtype=torch.int64)
    table = KERNELS.turned_sums(ones(size, dtype), signs, turns, columns)
    KERNELS.turned_medians(table, signs, turns, None)
    assert set(compiled) == {"turned_sums", "turned_medians"}
