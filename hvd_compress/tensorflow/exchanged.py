"""Marks on exchanged gradients, so that no second wrapper compresses a mean that is one already."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..errors import UsageError

_MARK = "_hvd_compress_exchanged"


def mark_exchanged(gradients: Iterable[Any]) -> None:
    """Mark what an exchange returned; operations on it drop the mark."""
    for gradient in gradients:
        if gradient is not None:
            setattr(gradient, _MARK, True)


def check_not_exchanged(gradients: Iterable[Any]) -> None:
    """Raise if gradients come from an exchange.

    Raises:
        UsageError: they do.
    """
    if any(getattr(gradient, _MARK, False) for gradient in gradients):
        raise UsageError(
            "These gradients were exchanged already; use either hvd.DistributedGradientTape or "
            "hvd.DistributedOptimizer, not both."
        )
