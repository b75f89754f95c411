"""Identity: the gradient as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ..contract import SUMMABLE_DTYPES, Array, Codec, Key, Spec
from ..ops import ArrayOps


@final
@dataclass(frozen=True, repr=False)
class Identity(Codec):
    """No compression: C(x) = x."""

    def encode(self, array: Array, ops: ArrayOps, key: Key = ()) -> tuple[Array, ...]:
        return (array,)

    def decode(self, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Array:
        return parts[0]

    def payload(self, spec: Spec) -> tuple[tuple[int, str], ...]:
        return ((spec.size, spec.dtype),)

    def summable(self, spec: Spec) -> bool:
        return spec.dtype in SUMMABLE_DTYPES

    @property
    def elementwise(self) -> bool:
        return True

    def lossless(self, spec: Spec) -> bool:
        return True
