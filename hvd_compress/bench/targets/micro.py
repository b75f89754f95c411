"""Targets for what compressors cost by themselves: as many copies of the gradient, at every size from 16 MB up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...codecs import QSGD, BlockSign, TopK
from ...methods import PowerSGD, ScaleCom, SketchedSGD
from ...registry import resolve
from ..micro.codec_subject import codec_of
from ..micro.measure import Point
from ..sizes import as_text
from .limits import is_rank_4
from .target import Target, judge

# What starting operations takes counts below it, and no user waits for that.
_SMALLEST = 2**20
# A copy of less stays in a processor's cache; gradients of models that wait for a network do not.
_SMALLEST_COPIED = 16 * 2**20


def _codec(accepts: Callable[[Any], bool]) -> Callable[[str], bool]:
    return lambda row: codec_of(row) is not None and accepts(codec_of(row))


def _exchange(accepts: Callable[[Any], bool]) -> Callable[[str], bool]:
    return lambda row: codec_of(row) is None and accepts(resolve(row))


_COPIES: tuple[tuple[str, float, Callable[[str], bool]], ...] = (
    ("error feedback + rank 4", 10, lambda row: codec_of(row) is None and is_rank_4(row)),
    ("signs, encode + decode", 12, _codec(lambda codec: isinstance(codec, BlockSign))),
    ("QSGD, encode + decode", 12, _codec(lambda codec: isinstance(codec, QSGD))),
    (
        "top-k at 1 %, chunked, encode + decode",
        12,
        _codec(lambda codec: isinstance(codec, TopK) and codec.selection == "chunked" and codec.ratio == 0.01),
    ),
    ("Sketched-SGD", 60, _exchange(lambda made: isinstance(made, SketchedSGD))),
    ("ScaleCom", 12, _exchange(lambda made: isinstance(made, ScaleCom))),
)


def micro_targets(points: Sequence[Point], world_size: int) -> list[Target]:
    """Return the targets, judged by points that were measured in one process: without a network.

    Args:
        points: measured.
        world_size: number of processes.
    """
    judged = [point for point in points if world_size == 1 and point.nbytes >= _SMALLEST_COPIED]
    made = [
        judge(
            f"{what}: copies of the gradient, from 16 MB up",
            limit,
            (
                (point.copies, f"{point.compressor}, {as_text(point.nbytes)}")
                for point in judged
                if matches(point.compressor)
            ),
        )
        for what, limit, matches in _COPIES
    ]
    state = [
        (point.state_bytes / point.nbytes, f"{point.compressor}, {as_text(point.nbytes)}")
        for point in points
        if point.nbytes >= _SMALLEST
        and _exchange(lambda compressor: isinstance(compressor, PowerSGD))(point.compressor)
    ]
    return [*made, judge("PowerSGD: state / gradient, from 1 MB up", 1.05, state)]
