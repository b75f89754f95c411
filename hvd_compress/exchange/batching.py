"""Batching: one array operation for all units of a bucket that ask for it with equal shapes."""

from __future__ import annotations

from collections.abc import Mapping

from ..contract import Array, Batched, Round
from ..errors import UsageError
from ..ops import ArrayOps


def answer_batched(asked: Mapping[str, tuple[Round, ArrayOps]]) -> dict[str, list[object]]:
    """Return the answers of the units whose round is one of `Batched` requests, by unit.

    Args:
        asked: by unit, its round and its array operations.

    Raises:
        UsageError: a round has `Batched` requests and others.
    """
    answers: dict[str, list[object]] = {}
    groups: dict[tuple[str, tuple[int, ...], str, ArrayOps], list[tuple[str, int, Array]]] = {}
    for name, (requests, ops) in asked.items():
        batched = [request for request in requests if isinstance(request, Batched)]
        if not batched:
            continue
        if len(batched) != len(requests):
            raise UsageError(f"{name!r} asked for Batched and for something else in one round; yield them apart.")
        answers[name] = [None] * len(batched)
        for part, request in enumerate(batched):
            key = (request.operation, ops.shape(request.array), ops.dtype(request.array), ops)
            groups.setdefault(key, []).append((name, part, request.array))
    for (operation, _, _, ops), members in groups.items():
        function = getattr(ops, operation)
        arrays = [array for _, _, array in members]
        results = function(ops.stack(arrays)) if len(arrays) > 1 else [function(arrays[0])]
        for i, (name, part, _) in enumerate(members):
            answers[name][part] = results[i]
    return answers
