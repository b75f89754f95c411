"""Buckets: which units travel together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .units import Unit, late_bytes

# The first bucket sends up to this share of the bytes of gradients that one may hold, each next one twice as much.
_FIRST_SHARE = 1 / 25


def make_buckets(
    units: Sequence[Unit], bucket_bytes: float, group_of: Mapping[str, int], world_size: int
) -> tuple[tuple[int, ...], ...]:
    """Return the buckets, as positions in `units`.

    A bucket is closed once its gradients reach `bucket_bytes`, or what is sent of them reaches a share of that which
    doubles with every bucket: the link should be busy soon after the first gradients are there, and is from then on if
    it is what everything waits for. Compressors that send little have buckets that are full.

    Args:
        units: in the order in which gradients are expected.
        bucket_bytes: of gradients.
        group_of: parameter names that must travel in one bucket, and the number of their group.
        world_size: number of workers.
    """
    group_of = _tie_groups(units, group_of)
    grouped: dict[int, list[int]] = {}
    loose: list[list[int]] = []
    most_sent = bucket_bytes * _FIRST_SHARE / 2
    full, filled, sent = True, 0, 0.0
    for i, unit in enumerate(units):
        group = next((group_of[name] for name, _ in unit.parameters if name in group_of), None)
        if group is not None:
            grouped.setdefault(group, []).append(i)
            continue
        if full:
            loose.append([])
            most_sent, filled, sent = 2 * most_sent, 0, 0.0
        loose[-1].append(i)
        filled += unit.spec.nbytes
        sent += late_bytes(unit.operator, unit.spec, world_size)
        full = filled >= bucket_bytes or sent >= most_sent
    return tuple(tuple(bucket) for bucket in [*grouped.values(), *loose])


def _tie_groups(units: Sequence[Unit], group_of: Mapping[str, int]) -> dict[str, int]:
    """Return the group of every name, where groups that one unit of several parameters belongs to become one."""
    tied = {g: g for g in group_of.values()}
    for unit in units:
        members = {tied[group_of[name]] for name, _ in unit.parameters if name in group_of}
        tied = {g: min(members) if root in members else root for g, root in tied.items()}
    return {name: tied[g] for name, g in group_of.items()}
