"""Before anything travels, ranks compare plans; all of them raise, with the first difference in words."""

from __future__ import annotations

from typing import Any

import pytest

from hvd_compress import Cast, PowerSGD, RankDisagreementError, Spec
from hvd_compress.exchange import Plan, check_agreement, make_plan

PARAMETERS = [("layer.weight", Spec((8, 8))), ("layer.bias", Spec((8,)))]


def errors(plans: list[Plan]) -> list[str]:
    """Return what every rank is told, given what all ranks have; and check that all gather equally often."""
    told, calls = [], []
    for plan in plans:
        count = 0

        def gather(own: Any) -> list[Any]:
            nonlocal count
            count += 1
            parts = [p.digest if isinstance(own, bytes) else p.description for p in plans]
            assert own in parts
            return parts

        try:
            check_agreement(plan, gather)
        except RankDisagreementError as error:
            told.append(str(error))
        calls.append(count)
    assert len(set(calls)) == 1, "a rank that gathers less leaves the others waiting"
    assert len(told) in (0, len(plans))
    return told


def test_equal_plans_agree() -> None:
    assert errors([make_plan(PowerSGD(), PARAMETERS, 2) for _ in range(3)]) == []


@pytest.mark.parametrize(
    ("other", "first", "second"),
    [
        (make_plan(PowerSGD(rank=2), PARAMETERS, 2), "compression=PowerSGD()", "compression=PowerSGD(rank=2)"),
        (make_plan(Cast(), PARAMETERS, 2), "PowerSGD()", "Cast()"),
        (make_plan(PowerSGD(), PARAMETERS[:1], 2), "layer.bias", ""),
        (make_plan(PowerSGD(), [("layer.weight", Spec((8, 9))), PARAMETERS[1]], 2), "[8, 8]", "[8, 9]"),
        (make_plan(PowerSGD(), PARAMETERS, 2, settings={"op": "Sum"}), "", "op=Sum"),
    ],
    ids=["settings", "method", "fewer", "shape", "told"],
)
def test_all_ranks_are_told_the_first_difference(other: Plan, first: str, second: str) -> None:
    plan = make_plan(PowerSGD(), PARAMETERS, 2)
    told = errors([plan, plan, other])
    assert told == [told[0]] * 3
    assert "Ranks 0 and 2" in told[0]
    left, right = told[0].split("rank 2 has")
    assert first in left
    assert second in right
    assert "same model and the same compression settings" in right
