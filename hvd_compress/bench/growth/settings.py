"""What is made to grow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ...errors import ConfigurationError


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
        warmup: exchanges before those that are timed, at least 2.
        repeats: timed exchanges, at least 1.

    Raises:
        ConfigurationError: a setting is out of range.
    """

    compressors: tuple[str, ...]
    parameters: tuple[int, ...]
    tensors: tuple[int, ...]
    matrices: int = 10
    tensor_bytes: int = 4096
    warmup: int = 3
    repeats: int = 7

    def __post_init__(self) -> None:
        counts = (*self.parameters, *self.tensors, self.matrices, self.tensor_bytes // 4)
        if not self.parameters and not self.tensors:
            raise ConfigurationError("Nothing is to grow: give numbers of parameters or of tensors.")
        if min(counts) < 1:
            raise ConfigurationError("A number of parameters, tensors, matrices or bytes is below 1; give larger ones.")
        if self.warmup < 2 or self.repeats < 1:
            raise ConfigurationError(f"warmup={self.warmup}, repeats={self.repeats}: give at least 2 and 1.")
