"""What is known of a gradient before training: its shape and its element type."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from ..errors import ConfigurationError

DTYPE_BYTES = {
    "float16": 2,
    "bfloat16": 2,
    "float32": 4,
    "float64": 8,
    "uint8": 1,
    "int8": 1,
    "int16": 2,
    "int32": 4,
    "int64": 8,
}
GRADIENT_DTYPES = ("float16", "bfloat16", "float32", "float64")
# What MPI, Gloo and NCCL can all add up; bfloat16 is refused by Horovod's collectives.
SUMMABLE_DTYPES = ("float16", "float32", "float64", "int32", "int64")


def wide_dtype(dtype: str) -> str:
    """Return the element type in which gradients of type `dtype` are computed with: at least float32."""
    return "float64" if dtype == "float64" else "float32"


@dataclass(frozen=True)
class Spec:
    """Shape and element type of one unit's gradient.

    Args:
        shape: dimensions, any number of them, zeros allowed.
        dtype: one of `GRADIENT_DTYPES`.
        output_axis: the axis of output features: 0 (torch: out x in x kh x kw) or -1 (TensorFlow: kh x kw x in x out).
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    output_axis: Literal[0, -1] = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        if self.dtype not in DTYPE_BYTES:
            known = ", ".join(DTYPE_BYTES)
            raise ConfigurationError(f"dtype {self.dtype!r} is not supported; use one of {known}.")

    @cached_property
    def size(self) -> int:
        """Number of elements (1 for a 0-D tensor)."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the uncompressed gradient."""
        return self.size * DTYPE_BYTES[self.dtype]

    @cached_property
    def matrix_shape(self) -> tuple[int, int]:
        """The matrix (n, m) that the gradient is seen as: shape[0] x rest, or rest x shape[-1]."""
        if not self.shape:
            return (1, 1)
        if self.output_axis == 0:
            return (self.shape[0], math.prod(self.shape[1:]))
        return (math.prod(self.shape[:-1]), self.shape[-1])

    @property
    def wide(self) -> Spec:
        """The same gradient in the element type that is computed with."""
        dtype = wide_dtype(self.dtype)
        return self if dtype == self.dtype else replace(self, dtype=dtype)
