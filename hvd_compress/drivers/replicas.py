"""Do all ranks hold the same model? Two checksums per parameter, compared across ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ReplicaDivergenceError

# Equal updates of equal replicas are equal bits on like machines; unlike ones may round differently.
RELATIVE_TOLERANCE = 1e-5


def check_checksums(
    names: Sequence[str], all_sums: np.ndarray[Any, Any], step: int, *, what: str = "Parameter", cure: str
) -> None:
    """Raise if a parameter differs between ranks by more than rounding.

    Args:
        names: of the parameters.
        all_sums: float64, a row for every rank: sum and sum of magnitudes of each parameter, one after the other.
        step: steps done, for the message.
        what: what the framework calls a parameter.
        cure: what to call before training.

    Raises:
        ReplicaDivergenceError: the first parameter that differs, and the rank.
    """
    magnitudes = np.maximum(all_sums[0, 1::2], 1e-30)[None]
    allowed = RELATIVE_TOLERANCE * np.where(np.isfinite(magnitudes), magnitudes, 0.0)
    for column in (0, 1):
        values = all_sums[:, column::2]
        same = np.isclose(values, values[:1], rtol=0.0, atol=allowed, equal_nan=True)
        if not same.all():
            rank, index = (int(i) for i in np.argwhere(~same)[0])
            raise ReplicaDivergenceError(
                f"{what} {names[index]!r} differs between rank 0 and rank {rank} after step {step}; call "
                f"{cure} before training, and change {what.lower()}s on all ranks alike."
            )
