"""Agreement: ranks compare what must be equal on all of them, before anything else travels."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ..errors import RankDisagreementError
from .plan import Plan


def check_change(plan: Plan, residual: str, gather: Callable[[Any], Sequence[Any]]) -> None:
    """Raise on every rank unless all change to the same plan and treat residuals alike; as `check_agreement`."""
    check_agreement(replace(plan, settings=(*plan.settings, ("residual", residual))), gather)


def check_agreement(plan: Plan, gather: Callable[[Any], Sequence[Any]]) -> None:
    """Raise on every rank unless all ranks have the same plan.

    Args:
        plan: this rank's.
        gather: takes one small picklable object and returns those of all ranks, by rank.

    Raises:
        RankDisagreementError: ranks differ; the message names two ranks and the first difference.
    """
    digests = gather(plan.digest)
    if len(set(digests)) == 1:
        return
    # Every rank sees the same digests, so every rank comes here and gathers again.
    descriptions = gather(plan.description)
    other = next(rank for rank, digest in enumerate(digests) if digest != digests[0])
    first, second = _first_difference(descriptions[0], descriptions[other])
    raise RankDisagreementError(
        f"Ranks 0 and {other} were set up differently: rank 0 has {first!r}, rank {other} has {second!r}; give every "
        "rank the same model and the same compression settings."
    )


def _first_difference(left: str, right: str) -> tuple[str, str]:
    a, b = left.splitlines(), right.splitlines()
    for tag, i, i_end, j, j_end in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if tag != "equal":
            return _line(a, i, i_end), _line(b, j, j_end)
    return "nothing", "nothing"


def _line(lines: list[str], start: int, end: int) -> str:
    return lines[start].strip() if start < end else "nothing"
