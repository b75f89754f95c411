"""Target: something that must hold among measured numbers, and whether it does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, final

Verdict = Literal["met", "not met", "not measured"]


@final
@dataclass(frozen=True)
class Target:
    """A ratio or a count, and the bound that it is to keep.

    Args:
        what: is bounded.
        limit: the bound.
        measured: the measured value that is furthest from keeping it; None where nothing measured tells.
        at: the measurement that this value is of.
        least: the bound is a lower one.
    """

    what: str
    limit: float
    measured: float | None
    at: str = ""
    least: bool = False

    @property
    def verdict(self) -> Verdict:
        """Whether the bound is kept."""
        if self.measured is None:
            return "not measured"
        kept = self.measured >= self.limit if self.least else self.measured <= self.limit
        return "met" if kept else "not met"

    def as_json(self) -> dict[str, Any]:
        """Return everything, the verdict too."""
        return {**asdict(self), "verdict": self.verdict}


def judge(what: str, limit: float, found: Iterable[tuple[float, str]], *, least: bool = False) -> Target:
    """Return the target as the worst of several measurements has it.

    Args:
        what: is bounded.
        limit: the bound.
        found: (value, which measurement); none of them makes a target that is not measured.
        least: the bound is a lower one.
    """
    values = list(found)
    if not values:
        return Target(what, limit, None, least=least)
    value, at = (min if least else max)(values, key=lambda item: item[0])
    return Target(what, limit, value, at, least)
