"""What a training step costs: host time, split into compute, compress and communicate, and bytes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from hvd_compress.contract import Mean, sent_bytes

PARTS = ("step", "compute", "compress", "communicate")


class StepClock:
    """Takes the time of every step and asks the exchange's meter for its share.

    compress: inside compressors. communicate: starting collectives and waiting for them, so what overlaps with backward
    costs nothing here. compute: everything else.
    """

    def __init__(self, meter: Any, device: torch.device) -> None:
        self._meter = meter
        self._device = device
        self._times: list[tuple[float, ...]] = []

    @contextmanager
    def step(self) -> Iterator[None]:
        """Time one step."""
        compress, wait, start = self._meter.compress_seconds, self._meter.wait_seconds, time.perf_counter()
        yield
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        total = time.perf_counter() - start
        compress, wait = self._meter.compress_seconds - compress, self._meter.wait_seconds - wait
        self._times.append((total, total - compress - wait, compress, wait))

    def typical(self) -> dict[str, float]:
        """Return the milliseconds of each part: means over the middle half of the steps by duration.

        The first tenth of the steps is left out. The parts add up to the step.
        """
        steady = sorted(self._times[len(self._times) // 10 :])
        middle = steady[len(steady) // 4 : -(len(steady) // 4) or None]
        columns = zip(PARTS, zip(*middle, strict=True), strict=True)
        return {part: 1e3 * statistics.fmean(times) for part, times in columns}


def dense_bytes(model: torch.nn.Module, world_size: int) -> int:
    """Return the bytes that one worker would send for one step without compression."""
    sizes = (p.numel() * p.element_size() for p in model.parameters())
    return sum(sent_bytes(Mean, nbytes, world_size) for nbytes in sizes)
