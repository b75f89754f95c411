"""Piecewise: codecs that decode any part of an array from a part of what was sent."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

from ..contract import Array, Spec
from ..ops import ArrayOps, Cut
from .in_one_step import InOneStep


class Piecewise(InOneStep, ABC):
    """A codec that decodes as little at a time as it is asked for.

    So what is decoded can be written, added or subtracted where it belongs, without memory of the gradient's size in
    between. A subclass says how in `decoder`.
    """

    @abstractmethod
    def decoder(self, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Cut:
        """Return what decodes numbers start .. stop - 1, flat and in new memory; start is a multiple of `unit`."""

    @property
    @abstractmethod
    def unit(self) -> int:
        """The number of elements that are decoded together, or a multiple of it."""

    @final
    def _decode(self, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Array:
        decoder = self.decoder(parts, spec, ops)
        output = (spec.size, spec.dtype)
        (flat,) = ops.by_pieces(lambda start, stop: (decoder(start, stop),), spec.size, self.unit, [output])
        return ops.reshape(flat, spec.shape)

    @final
    def _decode_to_(self, out: Array, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Array:
        return ops.put_by_pieces_(out, self.decoder(parts, spec, ops), self.unit)

    @final
    def _accumulate_(self, total: Array, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Array:
        # Sums are wide: the numbers need not be rounded to the gradient's type, nor fit into its range.
        return ops.add_by_pieces_(total, self.decoder(parts, spec.wide, ops), self.unit)

    @final
    def _subtract_(self, array: Array, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Array:
        return ops.add_by_pieces_(array, self.decoder(parts, spec, ops), self.unit, -1.0)
