"""Collectives of a step after fusion, from declared traffic alone."""

from __future__ import annotations

from ..contract import REDUCTIONS, Collective, Payload
from ..exchange import Plan


def rounds_of(plan: Plan, world_size: int, step: int) -> int:
    """Return the number of rounds that wait for one another at a step, the longest bucket's."""
    return max((len(_rounds(plan, bucket, world_size, step)) for bucket in plan.buckets), default=0)


def collectives_of(plan: Plan, world_size: int, step: int) -> int:
    """Return the number of collectives that a worker starts at a step."""
    return len(fused(plan, world_size, step))


def fused(plan: Plan, world_size: int, step: int) -> list[tuple[Payload, ...]]:
    """Return the collectives that a worker starts at a step, each as the payloads that travel in it.

    All payloads of one round and bucket that are of one kind, and of one element type where that adds numbers up,
    travel in one collective, but for large ones that travel apart.
    """
    found: list[tuple[Payload, ...]] = []
    for bucket in plan.buckets:
        for payloads in _rounds(plan, bucket, world_size, step):
            together: dict[tuple[type[Collective], str], list[Payload]] = {}
            for payload in payloads:
                if payload.count and payload.apart and payload.nbytes >= plan.apart_bytes:
                    found.append((payload,))
                elif payload.count:
                    dtype = payload.dtype if payload.kind in REDUCTIONS else ""
                    together.setdefault((payload.kind, dtype), []).append(payload)
            found += [tuple(members) for members in together.values()]
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
