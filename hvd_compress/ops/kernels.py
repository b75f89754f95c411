"""What a device may do in one kernel each, where operations one after another would go over memory several times."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError
from .codes import Coding
from .switches import is_on

if TYPE_CHECKING:
    import torch

    from .array import Array

# Set to 1, it switches the kernels on.
SWITCH = "HVD_COMPRESS_TRITON"


class Restorer(ABC):
    """What makes numbers of packed codes, as a `Cut` does; and adds them to an array without memory in between."""

    @abstractmethod
    def __call__(self, start: int, stop: int) -> Array:
        """Return numbers start .. stop - 1; start is a multiple of 8 and begins a bucket."""

    @abstractmethod
    def add_to_(self, x: Array, scale: float) -> Array:
        """Return x, row-major, with all numbers added or, for a scale of -1, subtracted."""


class Kernels(ABC):
    """Fused operations: those of `ArrayOps`, bit for bit, but for the order in which sums are rounded."""

    @abstractmethod
    def pack(self, x: Array, width: int) -> Array:
        """Do `ArrayOps.pack` for a width of 1 to 7."""

    @abstractmethod
    def unpack(self, x: Array, width: int, count: int) -> Array:
        """Do `ArrayOps.unpack` for a width of 1 to 7."""

    @abstractmethod
    def signs_and_sums(self, x: Array, width: int, dtype: str, magnitudes: bool) -> tuple[Array, Array]:
        """Do `ArrayOps.signs_and_sums`; sums are rounded in another order."""

    @abstractmethod
    def restorer(self, packed: Array, steps: Array, coding: Coding, dtype: str) -> Restorer:
        """Do `ArrayOps.restorer`."""

    @abstractmethod
    def argmax_abs(self, x: Array) -> Array:
        """Do `ArrayOps.argmax_abs`."""

    @abstractmethod
    def finite_or_zero_(self, x: Array) -> Array:
        """Do `ArrayOps.finite_or_zero_` to row-major x."""

    @abstractmethod
    def turned_sums(self, x: Array, signs: Sequence[Array], turns: Array, columns: int) -> Array:
        """Do `ArrayOps.turned_sums`."""

    @abstractmethod
    def turned_medians(self, table: Array, signs: Sequence[Array], turns: Array, memory: Array | None) -> Array:
        """Do `ArrayOps.turned_medians`."""


def kernels_for(device: torch.device) -> Kernels | None:
    """Return the kernels of a device, where the user has switched them on; only then Triton is imported.

    Raises:
        ConfigurationError: they are switched on and Triton is missing, or the switch is neither 0 nor 1.
    """
    if device.type != "cuda" or not is_on(SWITCH, default=False, purpose="for kernels made by Triton"):
        return None
    try:
        from .triton_kernels import TritonKernels
    except ImportError as error:
        missing: Any = error.name or error
        raise ConfigurationError(
            f"{SWITCH}='1' asks for kernels made by Triton, which cannot be imported ({missing}); install `triton`, or "
            f"unset {SWITCH}."
        ) from error
    return TritonKernels()
