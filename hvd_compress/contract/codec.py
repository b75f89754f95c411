"""The contract of a codec: a local, stateless way to write a gradient in fewer bytes.

A codec is a frozen dataclass of settings. `encode` turns an array into its parts (arrays that together say
everything data-dependent), `decode` turns parts back, knowing only the array's `Spec`. `payload` declares the
parts from shapes alone. Codecs say nothing of how parts move: `AllReduce(codec)`, `TwoWay(codec)` do.

Every codec also is a Horovod compressor: `compress(tensor) -> (tensor, ctx)` and `decompress(tensor, ctx)`, on
an instance or, with default settings, on the class. Where `summable` holds, the one allreduce that Horovod's own
optimizer does between the two is right. Where it does not, the payload's element type is one that an allreduce
refuses, so that bits are never added up by mistake.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeVar, final

from ..ops import ArrayOps, ops_of
from .request import Array
from .settings import Settings
from .spec import DTYPE_BYTES, Spec

T = TypeVar("T")
Key = tuple[int | str, ...]


class _OnClassToo(Generic[T]):
    """A method that, called on the class, works on an instance with default settings, as Horovod's do."""

    def __init__(self, function: Callable[..., T]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __get__(self, instance: Any, owner: type) -> Callable[..., T]:
        target = owner() if instance is None else instance
        return self._function.__get__(target, owner)  # type: ignore[no-any-return]


class Codec(Settings, ABC):
    """A local way to write a gradient in fewer bytes. Subclasses are final dataclass(frozen=True, repr=False)."""

    @abstractmethod
    def encode(self, array: Array, ops: ArrayOps, key: Key = ()) -> tuple[Array, ...]:
        """Return the parts of `array`; `key` seeds the random stream of codecs that round at random.

        Unless the codec is lossless the parts must not share memory with `array`, which is used for the residual
        while the parts travel.
        """

    def arranged(self, array: Array, spec: Spec, ops: ArrayOps) -> Array:
        """Return an array of `spec` in the shape that `encode` is to see, where the output axis matters to it."""
        del spec, ops
        return array

    @abstractmethod
    def decode(self, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Array:
        """Return an array of `spec` from its parts, in a buffer of its own unless the parts are donated to it."""

    @abstractmethod
    def payload(self, spec: Spec) -> tuple[tuple[int, str], ...]:
        """Return (number of elements, element type) of every part of such an array."""

    @abstractmethod
    def summable(self, spec: Spec) -> bool:
        """Return whether decode(sum of parts) = sum of decoded, so that an allreduce may carry the parts."""

    def accumulate_(self, total: Array, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Array:
        """Return total + decode(parts); `total` is donated. Sparse codecs touch only what they carry."""
        return ops.add_(total, ops.cast(self.decode(parts, spec, ops), ops.dtype(total)))

    def decode_to_(self, out: Array, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Array:
        """Return decode(parts) in the shape of `out`, an array of `spec`'s size and type that is donated."""
        return ops.reshape(self.decode(parts, spec, ops), ops.shape(out))

    def subtract_(self, array: Array, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Array:
        """Return array - decode(parts); `array`, of `spec`'s size, is donated."""
        decoded = ops.reshape(self.decode(parts, spec, ops), ops.shape(array))
        return ops.add_(array, ops.cast(decoded, ops.dtype(array)), -1.0)

    def positions(self, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Array | None:
        """Return the flat positions whose elements the parts carry; None where that is all of them."""
        del parts, spec, ops
        return None

    @property
    def whole(self) -> bool:
        """Whether a gradient must stay in one piece, so that it travels by `AllGather` if nothing else is said."""
        return False

    def compresses(self, spec: Spec) -> bool:
        """Return whether this codec is worth using for such a gradient; otherwise it travels dense."""
        del spec
        return True

    @property
    def votes(self) -> bool:
        """Whether decoded values are directions, so that no average of gradients can stand in for theirs."""
        return False

    @property
    def elementwise(self) -> bool:
        """Whether each element is written and read as it would be by itself."""
        return False

    @property
    def block_length(self) -> int:
        """Elements of the consecutive blocks that are written and read as each would be by itself; 0: none."""
        return 1 if self.elementwise else 0

    def lossless(self, spec: Spec) -> bool:
        """Return whether decode(encode(x)) = x for every such x, so that nothing is left for a residual."""
        del spec
        return False

    @_OnClassToo
    def compress(self, tensor: Array) -> tuple[Array, Any]:
        """Return (payload, ctx): one tensor to send, and what `decompress` needs besides (Horovod's API)."""
        ops = ops_of(tensor)
        spec = Spec(ops.shape(tensor), ops.dtype(tensor))
        parts = self.encode(tensor, ops)
        if len(parts) == 1:
            return parts[0], (self, spec)
        return ops.concat([ops.as_bytes(part) for part in parts]), (self, spec)

    @staticmethod
    @final
    def decompress(tensor: Array, ctx: Any) -> Array:
        """Return the gradient from a payload, in its first shape and element type (Horovod's API)."""
        codec, spec = ctx
        ops = ops_of(tensor)
        declared = codec.payload(spec)
        if len(declared) == 1:
            return codec.decode((tensor,), spec, ops)
        sizes = [count * DTYPE_BYTES[dtype] for count, dtype in declared]
        pieces = ops.split(tensor, sizes)
        parts = (ops.from_bytes(piece, dtype) for piece, (_, dtype) in zip(pieces, declared, strict=True))
        return codec.decode(tuple(parts), spec, ops)
