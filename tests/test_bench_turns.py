"""Turns: every row has enough steps, none takes much longer than its time, and rows stay side by side."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd_compress import ConfigurationError
from hvd_compress.bench.turns import LEAST_REPEATS, LEAST_WARMUP, Budget, Turns


def played(turns: Turns, seconds: dict[str, float]) -> list[dict[str, bool]]:
    """Return all rounds, where the steps of a row always take as long."""
    rounds = []
    while due := turns.next_round():
        rounds.append(due)
        for row in due:
            turns.took(row, seconds[row])
    return rounds


@given(
    st.integers(LEAST_WARMUP, 6),
    st.integers(1, 20),
    st.floats(0.01, 100.0),
    st.lists(st.floats(1e-6, 100.0), min_size=1, max_size=4),
)
def test_laws(warmup: int, repeats: int, limit: float, times: list[float]) -> None:
    seconds = {f"row{i}": time for i, time in enumerate(times)}
    rounds = played(Turns(Budget(warmup, repeats, limit), tuple(seconds)), seconds)
    for row, time in seconds.items():
        own = [due[row] for due in rounds if row in due]
        warm, timed = own.count(False), own.count(True)
        assert own == [False] * warm + [True] * timed, "what is timed comes last"
        assert LEAST_WARMUP <= warm <= warmup and min(LEAST_REPEATS, repeats) <= timed <= repeats
        # One step fewer would not have been enough.
        assert timed == min(LEAST_REPEATS, repeats) or time * (timed - 1) < limit * (1 + 1e-9)
        assert warm == LEAST_WARMUP or time * (warm - 1) < limit / 4 * (1 + 1e-9)
        # Fewer than asked for, only where time was up.
        assert timed == repeats or time * timed >= limit * (1 - 1e-9)
        assert warm == warmup or time * warm >= limit / 4 * (1 - 1e-9)
        # From the first round on, without a pause, in order.
        assert all(row in due for due in rounds[: len(own)])
    assert all(list(due) == [row for row in seconds if row in due] for due in rounds)


def test_a_row_that_is_late_warms_up_longer() -> None:
    budget, seconds = Budget(6, 3, 1.0), {"slow": 10.0, "late": 10.0}
    rounds = played(Turns(budget, ("slow", "late"), {"late": 2}), seconds)
    assert [due.get("slow") for due in rounds[:3]] == [False, False, True]
    assert [due.get("late") for due in rounds] == [False] * 4 + [True] * 3


def test_budgets_out_of_range_are_refused() -> None:
    for wrong in ((1, 1, 1.0), (2, 0, 1.0), (2, 1, 0.0), (2, 1, float("nan"))):
        with pytest.raises(ConfigurationError, match="give"):
            Budget(*wrong)
