"""How payloads are averaged by one collective."""

from __future__ import annotations

from collections.abc import Iterable

from ..contract import Mean, Sum


def mean_by(dtypes: Iterable[str], world_size: int) -> tuple[type[Mean] | type[Sum], int]:
    """Return the collective that averages payloads of these element types, and the number to divide by before it.

    float16 is divided before the sum: a sum of W numbers would overflow where their mean is in range.
    """
    return (Sum, world_size) if "float16" in dtypes else (Mean, 1)
