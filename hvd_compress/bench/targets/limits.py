"""What more than one kind of measurement is judged by."""

from __future__ import annotations

from collections.abc import Iterable

from ...methods import DistEFBlockSGD, DistEFBlockSGDM, DistEFSGD, DistEFSGDM, PowerSGD, ScaleCom, SketchedSGD
from ...registry import resolve
from .target import Target, judge

# Of one bucket, whatever the number of layers in it.
_COLLECTIVES = 3
_FUSING = (PowerSGD, ScaleCom, DistEFSGD, DistEFSGDM, DistEFBlockSGD, DistEFBlockSGDM, SketchedSGD)
# "No slower within noise" of two ways that do the same.
SAME = 1.05


def collectives(found: Iterable[tuple[str, float, str]]) -> Target:
    """Return the target for collectives.

    Args:
        found: (compressor, collectives a bucket and step, which measurement).
    """
    what = "collectives a step and bucket: PowerSGD, dist-EF, Sketched-SGD, ScaleCom"
    return judge(
        what,
        _COLLECTIVES,
        ((count, f"{name}, {at}") for name, count, at in found if isinstance(resolve(name), _FUSING)),
    )


def is_rank_4(name: str) -> bool:
    """Return whether a compressor is PowerSGD at rank 4, both factors at every step."""
    return bool(resolve(name) == PowerSGD(rank=4))


def is_alternating_rank_4(name: str) -> bool:
    """Return whether a compressor is PowerSGD at rank 4, one factor a step."""
    return bool(resolve(name) == PowerSGD(rank=4, alternate=True))
