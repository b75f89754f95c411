"""Clocks: moments in a stream of work, on the host or on a CUDA device."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any, final


class Clock(ABC):
    """Marks moments, and tells afterwards how long it was between two of them."""

    @abstractmethod
    def mark(self) -> Any:
        """Return the moment at which the work asked for so far is done."""

    @abstractmethod
    def seconds(self, first: Any, last: Any) -> float:
        """Return the time from one moment to another; waits until it is known."""


@final
class HostClock(Clock):
    """The host's; for work that is done when its call returns."""

    def mark(self) -> float:
        return time.perf_counter()

    def seconds(self, first: float, last: float) -> float:
        return last - first


@final
class CudaClock(Clock):
    """Events in the current CUDA stream of torch, so that timing waits for nothing."""

    def __init__(self) -> None:
        import torch

        self._torch = torch

    def mark(self) -> Any:
        event = self._torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def seconds(self, first: Any, last: Any) -> float:
        last.synchronize()
        return float(first.elapsed_time(last)) / 1e3
