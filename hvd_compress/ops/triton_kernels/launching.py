"""How a kernel is started."""

from __future__ import annotations

from typing import Any

import torch

# Numbers that a program works on at once, where nothing asks for another size. No choice of sizes has been measured.
LENGTH = 1024
GROUPS = LENGTH // 8

_device_of: Any = torch.cuda.device_of


def launch(kernel: Any, programs: int, x: torch.Tensor, *arguments: Any, **options: Any) -> None:
    """Queue so many programs of a kernel, if any, on the current stream of the device that holds `x`, its argument."""
    if programs:
        # Triton itself goes by the current device.
        with _device_of(x):
            kernel[(programs,)](x, *arguments, **options)
