"""What a micro-benchmark is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from ...contract import GRADIENT_DTYPES
from ...errors import ConfigurationError

LIBRARIES = ("numpy", "torch", "tensorflow")
DEVICES = ("cpu", "cuda")


@final
@dataclass(frozen=True)
class MicroSettings:
    """Settings of a micro-benchmark; equal on all ranks.

    Args:
        compressors: names of `registry.names()`, with settings if any; after "codec:" a codec by itself.
        sizes: of gradients, in bytes.
        library: whose arrays are exchanged.
        device: that they are on; "cuda" with torch and tensorflow.
        dtype: of gradients.
        warmup: exchanges before those that are timed, at least 1: the first one makes plans, state and graphs.
        repeats: exchanges that are timed, at least 1.
        seed: of the gradients.

    Raises:
        ConfigurationError: a setting is out of range.
    """

    compressors: tuple[str, ...]
    sizes: tuple[int, ...]
    library: Literal["numpy", "torch", "tensorflow"] = "torch"
    device: Literal["cpu", "cuda"] = "cpu"
    dtype: str = "float32"
    warmup: int = 3
    repeats: int = 15
    seed: int = 0

    def __post_init__(self) -> None:
        for name, known in (("library", LIBRARIES), ("device", DEVICES), ("dtype", GRADIENT_DTYPES)):
            if getattr(self, name) not in known:
                raise ConfigurationError(f"{name}={getattr(self, name)!r}: give one of {', '.join(known)}.")
        for name in ("warmup", "repeats"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name}={getattr(self, name)}: give at least 1.")
        if self.device == "cuda" and self.library == "numpy":
            raise ConfigurationError("device='cuda': NumPy has the CPU only; choose torch or tensorflow.")
