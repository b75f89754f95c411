"""Scaled: an unbiased codec, made smaller until error feedback can rely on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ..contract import Array, Codec, Key, Spec, check_codec, check_fraction
from ..ops import ArrayOps


@final
@dataclass(frozen=True, repr=False)
class Scaled(Codec):
    """Multiply what a codec decodes to: C(x) = factor U(x).

    Where U is unbiased with E||U(x) - x||^2 <= (w - 1) ||x||^2, factor = 1/w makes it a contraction on average,
    E||x - C(x)||^2 <= (1 - 1/w) ||x||^2, as error feedback needs. Without feedback the update is just shorter;
    `TwoWay` shortens it on the way there and on the way back, and so needs its server's feedback too.

    Args:
        codec: U, such as QSGD, for which w = 1 + min(n/s^2, sqrt(n)/s) with s levels and n elements a norm.
        factor: above 0, at most 1.

    Raises:
        ConfigurationError: codec is none, or factor is out of range.

    Source: Zheng, Huang, Kwok 2019 (arXiv:1905.10936), section 3.1.
    """

    codec: Codec
    factor: float

    def __post_init__(self) -> None:
        check_codec(self, self.codec)
        check_fraction(self, "factor", self.factor)

    @property
    def votes(self) -> bool:
        return self.codec.votes

    def encode(self, array: Array, ops: ArrayOps, key: Key = ()) -> tuple[Array, ...]:
        parts = self.codec.encode(array, ops, key)
        # Parts of a lossless codec may be the array itself, which is needed for the residual while they travel.
        shared = self.codec.lossless(Spec(ops.shape(array), ops.dtype(array)))
        return tuple(ops.copy(part) for part in parts) if shared else parts

    def decode(self, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Array:
        return self.codec.decode(parts, spec, ops) * self.factor

    def positions(self, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Array | None:
        return self.codec.positions(parts, spec, ops)

    def payload(self, spec: Spec) -> tuple[tuple[int, str], ...]:
        return self.codec.payload(spec)

    def compresses(self, spec: Spec) -> bool:
        return self.codec.compresses(spec)

    def summable(self, spec: Spec) -> bool:
        return self.codec.summable(spec)

    def lossless(self, spec: Spec) -> bool:
        return self.factor == 1 and self.codec.lossless(spec)
