"""What collectives return, and exchanges of several workers run side by side, with no driver."""

from __future__ import annotations

import sys
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

import numpy as np


class Asked(NamedTuple):
    """One collective that was asked for: its kind, the elements that a worker hands in, their type."""

    kind: str
    count: int
    dtype: str


def stack(arrays: Sequence[Any]) -> Any:
    """Return equal shapes along a new first axis."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(arrays[0], torch.Tensor):
        return torch.stack(list(arrays))
    return np.stack(list(arrays))


def collective(kind: str, arrays: Sequence[Any], root: int = 0) -> list[Any]:
    """Return what every worker gets back when worker i hands in `arrays[i]`."""
    world = len(arrays)
    if kind in ("Mean", "Sum"):
        divisor = world if kind == "Mean" else 1
        return [_sum(arrays) / divisor for _ in range(world)]
    if kind == "AllGather":
        return [stack(arrays) for _ in range(world)]
    if kind == "AllToAll":
        return [stack([array[rank] for array in arrays]) for rank in range(world)]
    if kind == "Broadcast":
        return [stack([arrays[root]])[0] for _ in range(world)]
    raise AssertionError(f"{kind} is no collective")


def _sum(arrays: Sequence[Any]) -> Any:
    total = stack(arrays).sum(0, dtype=arrays[0].dtype)
    return np.asarray(total) if isinstance(total, np.generic) else total


def lockstep(exchanges: Sequence[Generator[Any, Any, Any]]) -> tuple[list[Any], list[list[Asked]]]:
    """Run one exchange per worker to its end; return what each ended with, and what was asked, by round."""
    outcomes: list[Any] = [None] * len(exchanges)
    rounds: list[list[Asked]] = []
    answers: list[Any] = [None] * len(exchanges)
    while True:
        requests = []
        for rank, exchange in enumerate(exchanges):
            try:
                requests.append(exchange.send(answers[rank]))
            except StopIteration as end:
                outcomes[rank] = end.value
        if not requests:
            return outcomes, rounds
        assert len(requests) == len(exchanges), "some workers ended before others"
        rounds.append(_describe(requests[0]))
        assert all(_describe(other) == rounds[-1] for other in requests), "workers asked for different things"
        parts = [_answer(part) for part in zip(*requests, strict=True)]
        answers = [[part[rank] for part in parts] for rank in range(len(exchanges))]


def _describe(requests: Sequence[Any]) -> list[Asked]:
    """Return the collectives of a round; local work is not one."""
    return [
        Asked(type(r).__name__, int(np.prod(r.array.shape)), str(r.array.dtype).removeprefix("torch."))
        for r in requests
        if hasattr(r, "array")
    ]


def _answer(part: Sequence[Any]) -> list[Any]:
    if not hasattr(part[0], "array"):
        return [request.work() for request in part]
    root = getattr(part[0], "root", 0)
    return collective(type(part[0]).__name__, [request.array for request in part], root)
