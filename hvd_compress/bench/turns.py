"""Turns: rivals do steps one after the other, round after round, until each has done enough or had its time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from ..errors import ConfigurationError

# However long they take: a median of fewer says nothing, and the first steps make plans, graphs and state.
LEAST_REPEATS, LEAST_WARMUP = 3, 2


@final
@dataclass(frozen=True)
class Budget:
    """How many steps a row does, and for how long.

    Args:
        warmup: steps before those that are timed, at least 2; at most so many where they take long.
        repeats: timed steps, at least 1; at most so many where they take long.
        seconds: of timed steps, above 0, after which a row that has at least 3 of them does no more; a quarter of it
            for the steps before them, of which a row does at least 2.

    Raises:
        ConfigurationError: a setting is out of range.
    """

    warmup: int
    repeats: int
    seconds: float

    def __post_init__(self) -> None:
        if self.warmup < LEAST_WARMUP or self.repeats < 1:
            raise ConfigurationError(
                f"warmup={self.warmup}, repeats={self.repeats}: give at least {LEAST_WARMUP} and 1."
            )
        if not self.seconds > 0:
            raise ConfigurationError(f"seconds={self.seconds!r}: give a time above 0.")


@final
class Turns:
    """Whose turn it is, and whether it is timed; kept by one rank, which tells the others.

    Args:
        budget: of every row.
        late: by row, the first steps that are not yet what the row is about; 0 for rows that are not here.
        rows: in the order of their turns.
    """

    def __init__(self, budget: Budget, rows: tuple[str, ...], late: Mapping[str, int] | None = None) -> None:
        self._budget = budget
        self._least = {row: LEAST_WARMUP + (late or {}).get(row, 0) for row in rows}
        self._warm: dict[str, list[float]] = {row: [] for row in rows}
        self._timed: dict[str, list[float]] = {row: [] for row in rows}

    def next_round(self) -> dict[str, bool]:
        """Return the rows that do a step now, in order, and whether it is timed; none once all are done."""
        return {row: self._is_warm(row) for row in self._warm if not self._is_done(row)}

    def took(self, row: str, seconds: float) -> None:
        """Count a step of a row of the latest round."""
        (self._timed if self._is_warm(row) else self._warm)[row].append(seconds)

    def _is_warm(self, row: str) -> bool:
        done, budget = self._warm[row], self._budget
        if len(done) >= budget.warmup:
            return True
        return len(done) >= self._least[row] and sum(done) >= budget.seconds / 4

    def _is_done(self, row: str) -> bool:
        done, budget = self._timed[row], self._budget
        if len(done) >= budget.repeats:
            return True
        return len(done) >= LEAST_REPEATS and sum(done) >= budget.seconds
