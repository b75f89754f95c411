"""Cast: the gradient in a 16-bit floating-point type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from ..contract import Array, Codec, Key, Spec, check_choice
from ..ops import ArrayOps


@final
@dataclass(frozen=True, repr=False)
class Cast(Codec):
    """Round every element to a 16-bit floating-point number, nearest, ties to even: C(x) = fl16(x).

    float16 keeps 11 bits over 6e-8 .. 65504; `AllReduce` divides by the number of workers before it adds, so the
    sum stays in range where the mean does. bfloat16 keeps 8 bits over the whole float32 range; its bits
    travel as int16, which collectives cannot add up, so it moves by `TwoWay`: shards are averaged in float32.

    Args:
        dtype: "float16" or "bfloat16".

    Raises:
        ConfigurationError: another dtype.
    """

    dtype: Literal["float16", "bfloat16"] = "float16"

    def __post_init__(self) -> None:
        check_choice(self, "dtype", self.dtype, ("float16", "bfloat16"))

    def encode(self, array: Array, ops: ArrayOps, key: Key = ()) -> tuple[Array, ...]:
        if self.dtype == "bfloat16":
            return (ops.to_bfloat16_bits(array),)
        return (ops.cast(array, "float16"),)

    def decode(self, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Array:
        if self.dtype == "bfloat16":
            return ops.from_bfloat16_bits(parts[0], spec.dtype)
        return ops.cast(parts[0], spec.dtype)

    def payload(self, spec: Spec) -> tuple[tuple[int, str], ...]:
        return ((spec.size, "int16" if self.dtype == "bfloat16" else "float16"),)

    def summable(self, spec: Spec) -> bool:
        return self.dtype == "float16"

    @property
    def elementwise(self) -> bool:
        return True

    def lossless(self, spec: Spec) -> bool:
        return spec.dtype == self.dtype
