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
    if _is_tensorflow(arrays[0]):
        return sys.modules["tensorflow"].stack(list(arrays))
    return np.stack(list(arrays))


def collective(kind: str, arrays: Sequence[Any], root: int = 0, partners: Sequence[int] = ()) -> list[Any]:
    """Return what every worker gets back when worker i hands in `arrays[i]`."""
    world = len(arrays)
    if kind == "Mean":
        return [_sum(arrays) / world for _ in range(world)]
    if kind == "Sum":
        return [_sum(arrays) for _ in range(world)]
    if kind == "Max":
        return [_largest(arrays) for _ in range(world)]
    if kind == "AllGather":
        return [stack(arrays) for _ in range(world)]
    if kind == "AllToAll":
        return [stack([array[rank] for array in arrays]) for rank in range(world)]
    if kind == "Broadcast":
        return [stack([arrays[root]])[0] for _ in range(world)]
    if kind == "Swap":
        return [stack([arrays[partner]])[0] for partner in partners]
    raise AssertionError(f"{kind} is no collective")


def _largest(arrays: Sequence[Any]) -> Any:
    if _is_tensorflow(arrays[0]):
        return sys.modules["tensorflow"].reduce_max(stack(arrays), axis=0)
    return np.asarray(stack(arrays).max(0)) if isinstance(arrays[0], np.ndarray) else stack(arrays).amax(0)


def _sum(arrays: Sequence[Any]) -> Any:
    if _is_tensorflow(arrays[0]):
        return sys.modules["tensorflow"].reduce_sum(stack(arrays), axis=0)
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
                asked = exchange.send(answers[rank])
                while any(type(request).__name__ == "Batched" for request in asked):
                    asked = exchange.send([_batched(request) for request in asked])
                requests.append(asked)
            except StopIteration as end:
                outcomes[rank] = end.value
        if not requests:
            return outcomes, rounds
        assert len(requests) == len(exchanges), "some workers ended before others"
        rounds.append(_describe(requests[0]))
        assert all(_describe(other) == rounds[-1] for other in requests), "workers asked for different things"
        parts = [_answer(part) for part in zip(*requests, strict=True)]
        answers = [[part[rank] for part in parts] for rank in range(len(exchanges))]


def _batched(request: Any) -> Any:
    """Return the answer of local work on a matrix that a driver may do for several workers' units at once."""
    assert type(request).__name__ == "Batched" and request.operation == "orthonormal_rows", "no local round"
    if _is_tensorflow(request.array):
        tf = sys.modules["tensorflow"]
        return tf.transpose(tf.linalg.qr(tf.transpose(request.array))[0])
    library = np if isinstance(request.array, np.ndarray) else sys.modules["torch"]
    return library.linalg.qr(request.array.T)[0].T


def _describe(requests: Sequence[Any]) -> list[Asked]:
    """Return the collectives of a round; local work is not one."""
    return [
        Asked(type(r).__name__, int(np.prod(r.array.shape)), _dtype(r.array)) for r in requests if hasattr(r, "array")
    ]


def _answer(part: Sequence[Any]) -> list[Any]:
    if not hasattr(part[0], "array"):
        return [request.work() for request in part]
    root, partners = getattr(part[0], "root", 0), [getattr(request, "partner", 0) for request in part]
    return collective(type(part[0]).__name__, [request.array for request in part], root, partners)


def _dtype(array: Any) -> str:
    return str(array.dtype.name) if _is_tensorflow(array) else str(array.dtype).removeprefix("torch.")


def _is_tensorflow(array: Any) -> bool:
    return type(array).__module__.startswith("tensorflow.")
