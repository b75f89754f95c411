"""Collectives of a step after fusion, from declared traffic alone."""

from __future__ import annotations

from ..contract import REDUCTIONS, Payload
from ..exchange import Plan


def rounds_of(plan: Plan, world_size: int, step: int) -> int:
    """Return the number of rounds that wait for one another at a step, the longest bucket's."""
    return max((len(_rounds(plan, bucket, world_size, step)) for bucket in plan.buckets), default=0)


def collectives_of(plan: Plan, world_size: int, step: int) -> int:
    """Return the number of collectives that a worker starts at a step.

    All payloads of one round and bucket that are of one kind, and of one element type where that adds numbers up,
    travel in one collective, but for large ones that travel apart.
    """
    found = 0
    for bucket in plan.buckets:
        for payloads in _rounds(plan, bucket, world_size, step):
            full = [payload for payload in payloads if payload.count]
            together = {
                (payload.kind, payload.dtype if payload.kind in REDUCTIONS else "")
                for payload in full
                if not payload.apart
            }
            found += len(together) + sum(payload.apart for payload in full)
    return found


def _rounds(plan: Plan, bucket: tuple[int, ...], world_size: int, step: int) -> list[list[Payload]]:
    """Return the payloads of every round of a bucket, those of all its units together."""
    rounds: list[list[Payload]] = []
    for unit in (plan.units[i] for i in bucket):
        for number, payloads in enumerate(unit.operator.traffic(unit.spec, world_size, step)):
            if number == len(rounds):
                rounds.append([])
            rounds[number] += payloads
    return rounds
