"""The median as steps that a kernel can follow."""

from __future__ import annotations

from functools import cache
from typing import Any, final

from ..median import median


@cache
def median_steps(rows: int) -> tuple[tuple[int, int, int], ...]:
    """Return the steps (greatest, one, other) that end in the median of `rows` numbers, an odd number of them.

    Every step takes the larger (1) or the smaller (0) of two numbers, which are counted: first the rows, then what
    the steps have made, in their order.
    """
    recorder: Any = _Recorder(rows)
    median(list(range(rows)), recorder)
    return tuple(recorder.steps)


@final
class _Recorder:
    """Operations on the counts of numbers, instead of numbers."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.steps: list[tuple[int, int, int]] = []

    def minimum(self, one: int, other: int) -> int:
        return self._made(0, one, other)

    def maximum(self, one: int, other: int) -> int:
        return self._made(1, one, other)

    def _made(self, greatest: int, one: int, other: int) -> int:
        self.steps.append((greatest, one, other))
        return self.rows + len(self.steps) - 1
