"""What is made to grow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from ...errors import ConfigurationError
from ..turns import Budget


@final
@dataclass(frozen=True)
class GrowthSettings:
    """Settings of a growth measurement; equal on all ranks.

    Args:
        compressors: names of `registry.names()`, with settings if any.
        parameters: numbers of parameters, in `matrices` square matrices of equal size.
        tensors: numbers of tensors of `tensor_bytes` each.
        matrices: in a model whose parameters are counted.
        tensor_bytes: of one of many small tensors.
        bucket_megabytes: of gradients that travel together, as our optimizer has it.
        budget: of each row: exchanges, and their time.

    Raises:
        ConfigurationError: a setting is out of range.
    """

    compressors: tuple[str, ...]
    parameters: tuple[int, ...]
    tensors: tuple[int, ...]
    budget: Budget
    matrices: int = 10
    tensor_bytes: int = 4096
    bucket_megabytes: float = 25.0

    def __post_init__(self) -> None:
        counts = (*self.parameters, *self.tensors, self.matrices, self.tensor_bytes // 4)
        if not self.parameters and not self.tensors:
            raise ConfigurationError("Nothing is to grow: give numbers of parameters or of tensors.")
        if min(counts) < 1:
            raise ConfigurationError("A number of parameters, tensors, matrices or bytes is below 1; give larger ones.")

    def layers(self, parameters: int) -> dict[str, tuple[int, int]]:
        """Return the names and shapes of a model of about so many parameters."""
        side = max(1, round(math.sqrt(parameters / self.matrices)))
        return {f"layer{i}.weight": (side, side) for i in range(self.matrices)}
