"""TritonKernels: memory for what kernels write, and how much of it every program does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
import triton

from ..codes import Coding
from ..kernels import Kernels, Restorer
from .finite import finite_or_zero
from .launching import GROUPS, LENGTH, launch
from .median_steps import median_steps
from .packing import pack, unpack
from .restorer import TritonRestorer
from .row_maxima import argmax_abs
from .signs_and_sums import signs_and_sums
from .turned_medians import turned_medians
from .turned_sums import turned_sums

# A row has one program: torch divides longer ones among several.
_LONGEST_ROW = 2**14


@final
class TritonKernels(Kernels):
    """Kernels in Triton; what is not row-major is copied first."""

    def pack(self, x: torch.Tensor, width: int) -> torch.Tensor:
        size = x.shape[0]
        packed = torch.empty(-(-size // 8) * width, dtype=torch.uint8, device=x.device)
        launch(pack, triton.cdiv(size, LENGTH), x.contiguous(), packed, size, width, GROUPS)
        return packed

    def unpack(self, x: torch.Tensor, width: int, count: int) -> torch.Tensor:
        numbers = torch.empty(count, dtype=torch.uint8, device=x.device)
        launch(unpack, triton.cdiv(count, LENGTH), x.contiguous(), numbers, count, width, GROUPS)
        return numbers

    def signs_and_sums(
        self, x: torch.Tensor, width: int, dtype: str, magnitudes: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        x, size, width = x.contiguous(), x.shape[0], max(1, min(width, x.shape[0]))
        columns = max(8, min(triton.next_power_of_2(width), LENGTH))
        rows, tiles = triton.cdiv(size, width), triton.cdiv(width, columns)
        bits = torch.empty(-(-size // 8), dtype=torch.uint8, device=x.device)
        sums = torch.empty((rows, tiles), dtype=getattr(torch, dtype), device=x.device)
        # Rows of a number of bytes that is not whole share some, which two programs cannot write.
        whole = width % 8 == 0 or rows == 1
        together = LENGTH // columns
        outputs = (x, bits, sums, size)
        flags = (whole, True, magnitudes)
        programs = triton.cdiv(rows, together) * tiles
        launch(signs_and_sums, programs, *outputs, width, tiles, *flags, together, columns // 8)
        if not whole:
            flags = (True, False, magnitudes)
            launch(signs_and_sums, triton.cdiv(size, LENGTH), *outputs, LENGTH, 1, *flags, 1, GROUPS)
        return bits, sums.sum(1)

    def restorer(self, packed: torch.Tensor, steps: torch.Tensor, coding: Coding, dtype: str) -> Restorer:
        return TritonRestorer(packed, steps, coding, dtype)

    def argmax_abs(self, x: torch.Tensor) -> torch.Tensor:
        rows, width = x.shape
        if width > _LONGEST_ROW:
            return torch.argmax(x.abs(), dim=1)
        best = torch.empty(rows, dtype=torch.int64, device=x.device)
        columns = min(triton.next_power_of_2(width), LENGTH)
        together = LENGTH // columns
        launch(argmax_abs, triton.cdiv(rows, together), x.contiguous(), best, rows, width, together, columns)
        return best

    def finite_or_zero_(self, x: torch.Tensor) -> torch.Tensor:
        launch(finite_or_zero, triton.cdiv(x.numel(), LENGTH), x, x.numel(), LENGTH)
        return x

    def turned_sums(
        self, x: torch.Tensor, signs: Sequence[torch.Tensor], turns: torch.Tensor, columns: int
    ) -> torch.Tensor:
        x, size, (rows, blocks) = x.contiguous(), x.shape[0], turns.shape
        table = torch.empty((rows, columns), dtype=x.dtype, device=x.device)
        length, tiles = _tiled(columns)
        for i, bits in enumerate(signs):
            own, into = turns[8 * i : 8 * i + 8], table[8 * i : 8 * i + 8]
            launch(turned_sums, len(own) * tiles, x, bits, own, into, size, blocks, columns, tiles, length)
        return table

    def turned_medians(
        self, table: torch.Tensor, signs: Sequence[torch.Tensor], turns: torch.Tensor, memory: torch.Tensor | None
    ) -> torch.Tensor:
        (rows, columns), blocks, size = table.shape, turns.shape[1], signs[0].shape[0]
        if memory is None or not memory.is_contiguous():
            memory = torch.empty(size, dtype=table.dtype, device=table.device)
        length, tiles = _tiled(columns)
        sizes = (size, blocks, columns, tiles)
        arguments = (table.contiguous(), tuple(signs), turns, memory)
        launch(turned_medians, blocks * tiles, *arguments, *sizes, rows, median_steps(rows), length)
        return memory


def _tiled(columns: int) -> tuple[int, int]:
    """Return how many of so many columns a program has, and how many programs that makes."""
    length = min(triton.next_power_of_2(columns), LENGTH)
    return length, triton.cdiv(columns, length)
