"""What a torch optimizer must not do besides what its compressor does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..contract import Codec, Operator
from ..errors import ConfigurationError

if TYPE_CHECKING:
    import torch


def check_optimizer(optimizer: torch.optim.Optimizer, compressor: Operator | Codec) -> None:
    """Raise if both the compressor and the optimizer have momentum, or both have weight decay.

    Raises:
        ConfigurationError: they have; it would act twice.
    """
    if not isinstance(compressor, Operator):
        return
    for group in optimizer.param_groups:
        if compressor.has_momentum and group.get("momentum"):
            raise ConfigurationError(
                f"{compressor!r} has momentum of its own and the optimizer has momentum={group['momentum']!r}; set "
                "momentum=0 and nesterov=False in the optimizer."
            )
        if compressor.has_momentum and group.get("betas", (0.0,))[0]:
            raise ConfigurationError(
                f"{compressor!r} has momentum of its own and the optimizer has betas={group['betas']!r}; use "
                "torch's SGD without momentum, or another compressor."
            )
        if compressor.needs_parameters and group.get("weight_decay"):
            raise ConfigurationError(
                f"{compressor!r} has weight decay of its own and the optimizer has "
                f"weight_decay={group['weight_decay']!r}; set one of the two to 0."
            )
