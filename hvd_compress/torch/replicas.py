"""Do all ranks hold the same model? A checksum per parameter, compared across ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ..drivers.replicas import check_checksums
from .parameters import Named

CURE = "hvd.broadcast_parameters(model.state_dict(), root_rank=0)"


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
    check_checksums([name for name, _ in named], np.stack(gather(sums.cpu().numpy())), step, cure=CURE)


def _checksums(parameter: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sum and the sum of magnitudes, in float64, on the parameter's device."""
    p = parameter.detach()
    return p.sum(dtype=torch.float64), p.abs().sum(dtype=torch.float64)
