"""Do all ranks hold the same model? A checksum per parameter, compared across ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ..errors import ReplicaDivergenceError
from .parameters import Named

# Equal updates of equal replicas are equal bits on like machines; unlike ones may round differently.
RELATIVE_TOLERANCE = 1e-5


def check_replicas(named: Sequence[Named], gather: Callable[[Any], Sequence[Any]], step: int) -> None:
    """Raise on every rank if a parameter differs between ranks by more than rounding.

    Args:
        named: the parameters.
        gather: takes one small picklable object and returns those of all ranks, by rank.
        step: steps done, for the message.

    Raises:
        ReplicaDivergenceError: the first parameter that differs, and the rank.
    """
    if not named:
        return
    first = named[0][1].device
    sums = torch.stack([s.to(first, non_blocking=True) for _, p in named for s in _checksums(p)])
    all_sums = np.stack(gather(sums.cpu().numpy()))
    magnitudes = np.maximum(all_sums[0, 1::2], 1e-30)[None]
    allowed = RELATIVE_TOLERANCE * np.where(np.isfinite(magnitudes), magnitudes, 0.0)
    for column in (0, 1):
        values = all_sums[:, column::2]
        same = np.isclose(values, values[:1], rtol=0.0, atol=allowed, equal_nan=True)
        if not same.all():
            rank, index = (int(i) for i in np.argwhere(~same)[0])
            raise ReplicaDivergenceError(
                f"Parameter {named[index][0]!r} differs between rank 0 and rank {rank} after step {step}; call "
                "hvd.broadcast_parameters(model.state_dict(), root_rank=0) before training, and change parameters on "
                "all ranks alike."
            )


def _checksums(parameter: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sum and the sum of magnitudes, in float64, on the parameter's device."""
    p = parameter.detach()
    return p.sum(dtype=torch.float64), p.abs().sum(dtype=torch.float64)
