"""InOneStep: a codec whose work on an array is one step, where the steps that it consists of would be slow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, final

from ..contract import Array, Codec, Key, Spec
from ..ops import ArrayOps

Parts = tuple[Array, ...]


class InOneStep(Codec, ABC):
    """A codec that does what a codec does by `ArrayOps.at_once`; a subclass says how, under names that begin with _."""

    @abstractmethod
    def _encode(self, array: Array, ops: ArrayOps, key: Key) -> Parts:
        """Do `encode`."""

    @abstractmethod
    def _decode(self, parts: Parts, spec: Spec, ops: ArrayOps) -> Array:
        """Do `decode`."""

    @abstractmethod
    def _decode_to_(self, out: Array, parts: Parts, spec: Spec, ops: ArrayOps) -> Array:
        """Do `decode_to_`."""

    @abstractmethod
    def _accumulate_(self, total: Array, parts: Parts, spec: Spec, ops: ArrayOps) -> Array:
        """Do `accumulate_`."""

    @abstractmethod
    def _subtract_(self, array: Array, parts: Parts, spec: Spec, ops: ArrayOps) -> Array:
        """Do `subtract_`."""

    @final
    def encode(self, array: Array, ops: ArrayOps, key: Key = ()) -> Parts:
        def work(ops: ArrayOps, arrays: Sequence[Array], key: Sequence[Any]) -> Sequence[Array]:
            return self._encode(arrays[0], ops, tuple(key))

        payload = self.payload(Spec(ops.shape(array), ops.dtype(array)))
        return tuple(ops.at_once(work, [array], [((count,), dtype) for count, dtype in payload], key))

    @final
    def decode(self, parts: Parts, spec: Spec, ops: ArrayOps) -> Array:
        def work(ops: ArrayOps, arrays: Sequence[Array], key: Sequence[Any]) -> Sequence[Array]:
            return [self._decode(tuple(arrays), spec, ops)]

        return ops.at_once(work, parts, [(spec.shape, spec.dtype)])[0]

    @final
    def decode_to_(self, out: Array, parts: Parts, spec: Spec, ops: ArrayOps) -> Array:
        if not ops.in_place:
            return super().decode_to_(out, parts, spec, ops)
        return _changed(self._decode_to_, out, parts, spec, ops)

    @final
    def accumulate_(self, total: Array, parts: Parts, spec: Spec, ops: ArrayOps) -> Array:
        return _changed(self._accumulate_, total, parts, spec, ops)

    @final
    def subtract_(self, array: Array, parts: Parts, spec: Spec, ops: ArrayOps) -> Array:
        return _changed(self._subtract_, array, parts, spec, ops)


def _changed(
    change: Callable[[Array, Parts, Spec, ArrayOps], Array], x: Array, parts: Parts, spec: Spec, ops: ArrayOps
) -> Array:
    """Return what `change` makes of x, which is donated, and the parts."""

    def work(ops: ArrayOps, arrays: Sequence[Array], key: Sequence[Any]) -> Sequence[Array]:
        return [change(arrays[0], tuple(arrays[1:]), spec, ops)]

    return ops.at_once(work, [x, *parts], [(ops.shape(x), ops.dtype(x))], donated=1)[0]
