"""TritonRestorer: numbers made of packed codes, or added where they belong, in one kernel."""

from __future__ import annotations

from typing import Any, final

import torch
import triton
import triton.language as tl

from ..codes import Coding
from ..kernels import Restorer
from .launching import GROUPS, LENGTH, launch
from .restoring import add_restored, restore

# Places in buckets from this length on have 64 bits.
_LONG = 2**30


@final
class TritonRestorer(Restorer):
    """What makes numbers of packed codes.

    Products are rounded before they are added: what is subtracted must be what others decode.
    """

    def __init__(self, packed: torch.Tensor, steps: torch.Tensor, coding: Coding, dtype: str) -> None:
        self._packed, self._steps, self._coding = packed.contiguous(), steps.contiguous(), coding
        self._dtype = dtype

    def __call__(self, start: int, stop: int) -> torch.Tensor:
        bucket, width = self._coding.bucket, self._coding.width
        out = torch.empty(stop - start, dtype=getattr(torch, self._dtype), device=self._packed.device)
        steps = self._steps[start // bucket :] if bucket else self._steps
        self._launch(restore, self._packed[start // 8 * width :], steps, out)
        return out

    def add_to_(self, x: torch.Tensor, scale: float) -> torch.Tensor:
        self._launch(add_restored, self._packed, self._steps, x, getattr(tl, self._dtype), scale < 0.0)
        return x

    def _launch(self, kernel: Any, packed: torch.Tensor, steps: torch.Tensor, x: torch.Tensor, *more: Any) -> None:
        size, coding = x.numel(), self._coding
        bucket = min(coding.bucket or size, size)
        settings = (coding.width, coding.stride, coding.levels, bucket >= _LONG, GROUPS)
        sizes = (size, bucket)
        launch(kernel, triton.cdiv(size, LENGTH), packed, steps, x, *sizes, *settings, *more, enable_fp_fusion=False)
