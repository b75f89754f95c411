"""Collectives of a step after fusion, from declared traffic alone."""

from __future__ import annotations

from ..contract import Payload
from ..exchange import Plan


def rounds_of(plan: Plan, world_size: int, step: int) -> int:
    """Return the number of rounds that wait for one another at a step, the longest bucket's."""
    return max((len(_rounds(plan, bucket, world_size, step)) for bucket in plan.buckets), default=0)


def collectives_of(plan: Plan, world_size: int, step: int) -> int:
    """Return the number of collectives that a worker starts at a step.

    All payloads of one round and bucket that are of one kind and element type travel in one collective.
    """
    return sum(
        len({(payload.kind, payload.dtype) for payload in payloads if payload.count})
        for bucket in plan.buckets
        for payloads in _rounds(plan, bucket, world_size, step)
    )


def _rounds(plan: Plan, bucket: tuple[int, ...], world_size: int, step: int) -> list[list[Payload]]:
    """Return the payloads of every round of a bucket, those of all its units together."""
    rounds: list[list[Payload]] = []
    for unit in (plan.units[i] for i in bucket):
        for number, payloads in enumerate(unit.operator.traffic(unit.spec, world_size, step)):
            if number == len(rounds):
                rounds.append([])
            rounds[number] += payloads
    return rounds
