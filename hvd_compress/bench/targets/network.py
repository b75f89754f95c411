"""Targets for training on shaped links: what compression adds, and whether it sends what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ...codecs import Identity
from ...methods import PowerSGD
from ...registry import resolve
from ..network.measured import FLOOR, OURS, Measured
from ..network.sent import Sent
from .limits import SAME, collectives, is_alternating_rank_4, is_rank_4
from .target import Target, judge

_HOOK, _DENSE, _ONE_REDUCTION = "ddp:powersgd4", "horovod", "one-reduction:4"
# Where compression at rank 4 is judged: an LSTM between two workers at 1 Gbit/s.
_WORKLOAD, _RATE, _WORKERS = "lstm", "1gbit", 2
# What a step may send besides what it declares: a share of that, and so many bytes.
_SHARE, _BYTES = 0.05, 4096


def network_targets(rows: Sequence[Measured], counted: Sequence[Sent]) -> list[Target]:
    """Return the targets.

    Args:
        rows: measured, of any models, links and numbers of workers.
        counted: bytes of steps, likewise.
    """
    judged = {row.row: row for row in rows if (row.workload, row.rate, row.workers) == (_WORKLOAD, _RATE, _WORKERS)}
    of_ours = {name.removeprefix(OURS): row for name, row in judged.items() if name.startswith(OURS)}
    rank_4 = [row for name, row in of_ours.items() if is_rank_4(name)]
    alternating = [row for name, row in of_ours.items() if is_alternating_rank_4(name)]
    floor, hook, dense = (judged.get(name) for name in (FLOOR, _HOOK, _DENSE))
    where = f"{_WORKLOAD}, {_RATE}, {_WORKERS} workers"

    def against(peer: Measured | None, ratio: Callable[[Measured, Measured], float | None]) -> list[tuple[float, str]]:
        ratios = [(ratio(row, peer), f"{row.row}, {where}") for row in rank_4 if peer is not None]
        return [(value, at) for value, at in ratios if value is not None]

    def added(row: Measured, peer: Measured) -> float | None:
        if floor is None or peer.seconds <= floor.seconds:
            return None
        return (row.seconds - floor.seconds) / (peer.seconds - floor.seconds)

    one = judged.get(_ONE_REDUCTION)
    return [
        judge("PowerSGD rank 4: added to the floor / added by DDP's hook at rank 4", 0.5, against(hook, added)),
        judge("PowerSGD rank 4: step / floor", 1.5, against(floor, lambda row, peer: row.seconds / peer.seconds)),
        judge(
            "PowerSGD rank 4: Horovod dense / step",
            4.0,
            against(dense, lambda row, peer: peer.seconds / row.seconds),
            least=True,
        ),
        judge(
            "PowerSGD rank 4, alternating: step / one reduction a step",
            1.0,
            [(row.seconds / one.seconds, f"{row.row}, {where}") for row in alternating if one is not None],
        ),
        judge("plain averages through our driver / Horovod dense", SAME, _same(rows)),
        judge(f"(bytes of the link - wire bytes -/+ {_BYTES}) / wire bytes", _SHARE, _bytes(counted)),
        judge("PowerSGD: state / gradient", 1.05, _state(rows)),
        collectives(
            (row.row.removeprefix(OURS), row.collectives / row.buckets, _at(row))
            for row in rows
            if row.collectives is not None and row.buckets
        ),
    ]


def _same(rows: Sequence[Measured]) -> Iterator[tuple[float, str]]:
    dense = {_link(row): row.seconds for row in rows if row.row == _DENSE}
    for row in rows:
        if row.row.startswith(OURS) and _link(row) in dense and resolve(row.row.removeprefix(OURS)) == Identity():
            yield row.seconds / dense[_link(row)], _at(row)


def _bytes(rows: Sequence[Sent]) -> Iterator[tuple[float, str]]:
    for row in rows:
        if row.metered_bytes:
            off = abs(row.link_bytes - row.metered_bytes)
            yield max(0.0, off - _BYTES) / row.metered_bytes, _at(row)


def _state(rows: Sequence[Measured]) -> Iterator[tuple[float, str]]:
    for row in rows:
        if row.state_bytes is not None and isinstance(resolve(row.row.removeprefix(OURS)), PowerSGD):
            yield row.state_bytes / row.gradient_bytes, _at(row)


def _link(row: Measured) -> tuple[str, str, int]:
    return row.workload, row.rate, row.workers


def _at(row: Measured | Sent) -> str:
    return f"{row.row}, {row.workload}, {row.rate}, {row.workers} workers"
