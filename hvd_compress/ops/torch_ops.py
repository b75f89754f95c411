"""Array operations of torch, on any device."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CorruptPayloadError
from .array import Array, Cut
from .base import ArrayOps
from .bit_fields import WORD_LENGTHS, gathered, spread
from .codes import Coding
from .kernels import Kernels, Restorer, kernels_for
from .largest import by_groups
from .numpy_ops import NumPyOps
from .pieces import change_in_place, pieces_of
from .random import ShortStream
from .thin_products import THIN, product_with_columns, product_with_rows, put_product, subtract_product
from .thin_products_numpy import FEW

if TYPE_CHECKING:
    import torch

# Bytes of arrays whose memory is NumPy's: it asks for that in huge pages, which torch does not. With ordinary pages the
# system takes several times as long to hand out and clear new memory as it then takes to fill it.
_LARGE = 2**22
# The product with it has bit 8 i of a word, for i = 0 .. 7, in bit 49 + i, and carries nothing into these bits.
_BITS_TOGETHER = sum(1 << (49 - 7 * i) for i in range(8))
# Elements from which looking at all of them is faster than writing them.
_MANY = 2**16
_NUMPY = NumPyOps()


class TorchOps(ArrayOps):
    """Array operations of torch on one device; kernels are queued on the current stream.

    Args:
        device: where the tensors are.
        kernels: what is done in one kernel of our own; if None, as the user's environment says.
    """

    def __init__(self, device: torch.device, kernels: Kernels | None = None) -> None:
        import torch

        self._torch = torch
        self.device = device
        self._kernels = kernels_for(device) if kernels is None else kernels

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TorchOps) and (other.device, other._kernels) == (self.device, self._kernels)

    def __hash__(self) -> int:
        return hash(self.device)

    def dtype(self, x: Array) -> str:
        return str(x.dtype).removeprefix("torch.")

    def is_row_major(self, x: Array) -> bool:
        return bool(x.is_contiguous())

    def from_numpy(self, x: np.ndarray[Any, Any]) -> Array:
        return self._torch.tensor(x, device=self.device)

    def to_numpy(self, x: Array) -> np.ndarray[Any, Any]:
        return np.array(x.detach().cpu().numpy())

    def zeros(self, shape: Sequence[int], dtype: str) -> Array:
        kind = getattr(self._torch, dtype)
        nbytes = math.prod(shape) * kind.itemsize
        if self.device.type == "cpu" and nbytes >= _LARGE:
            return self._torch.from_numpy(np.zeros(nbytes, np.uint8)).view(kind).view(tuple(shape))
        return self._torch.zeros(tuple(shape), dtype=kind, device=self.device)

    def arange(self, size: int, dtype: str = "int64") -> Array:
        return self._torch.arange(size, dtype=getattr(self._torch, dtype), device=self.device)

    def zero_(self, x: Array) -> Array:
        return x.zero_()

    def copy(self, x: Array) -> Array:
        if self.device.type == "cpu" and x.nbytes >= _LARGE:
            return self._new(x.numel(), self.dtype(x)).view(x.shape).copy_(x)
        return x.clone(memory_format=self._torch.contiguous_format)

    def cast(self, x: Array, dtype: str) -> Array:
        if dtype == "uint8" and x.dtype == self._torch.float32 and self.device.type == "cpu":
            # A third of the time that it takes at once.
            return x.to(self._torch.int16).to(self._torch.uint8)
        return x.to(getattr(self._torch, dtype))

    def reshape(self, x: Array, shape: Sequence[int]) -> Array:
        if x.shape == shape or (x.dim() == 1 and len(shape) == 1 and shape[0] == -1):
            return x
        return x.reshape(tuple(shape))

    def concat(self, arrays: Sequence[Array], axis: int = 0) -> Array:
        return self._torch.cat(list(arrays), dim=axis)

    def split(self, x: Array, sizes: Sequence[int], axis: int = 0) -> list[Array]:
        return list(self._torch.split(x, list(sizes), dim=axis))

    def stack(self, arrays: Sequence[Array]) -> Array:
        return self._torch.stack(list(arrays))

    @property
    def host(self) -> ArrayOps:
        return _NUMPY if self.piecewise else self

    def on_host(self, x: Array) -> Array:
        return x.detach().numpy() if self.piecewise else x

    def off_host(self, x: Array) -> Array:
        return self._torch.from_numpy(x) if self.piecewise else x

    @property
    def piecewise(self) -> bool:
        return self.device.type == "cpu"

    def _new(self, size: int, dtype: str) -> Array:
        kind = getattr(self._torch, dtype)
        return self._torch.from_numpy(np.empty(size * kind.itemsize, np.uint8)).view(kind)

    def add_by_pieces_(self, x: Array, cut: Cut, unit: int, scale: float = 1.0) -> Array:
        if isinstance(cut, Restorer) and self.is_row_major(x) and abs(scale) == 1.0:
            return cut.add_to_(x, scale)
        if not self._in_cache(x):
            return super().add_by_pieces_(x, cut, unit, scale)
        flat = x.view(-1)
        for start, stop in pieces_of(flat.shape[0], unit):
            flat[start:stop].add_(cut(start, stop), alpha=scale)
        return x

    def change_parts_(self, x: Array, sizes: Sequence[int], change: Callable[[int, Array], Array]) -> Array:
        return change_in_place(x, sizes, change)

    def short_stream(self, key: Sequence[Any]) -> Cut:
        if self.device.type != "cpu":
            return super().short_stream(key)
        numbers = ShortStream(key)
        return lambda start, stop: self._torch.from_numpy(numbers(start, stop))

    def as_bytes(self, x: Array) -> Array:
        # An empty tensor may have strides that no view accepts.
        return x.contiguous().reshape(-1).view(self._torch.uint8) if x.numel() else self.zeros((0,), "uint8")

    def from_bytes(self, x: Array, dtype: str) -> Array:
        # A piece of a larger buffer may start at an address that the wider type cannot have.
        return x.clone().view(getattr(self._torch, dtype)) if x.numel() else self.zeros((0,), dtype)

    def to_bfloat16_bits(self, x: Array) -> Array:
        return x.to(self._torch.bfloat16).contiguous().view(self._torch.int16)

    def from_bfloat16_bits(self, bits: Array, dtype: str) -> Array:
        return bits.contiguous().view(self._torch.bfloat16).to(getattr(self._torch, dtype))

    def bitcast(self, x: Array, dtype: str) -> Array:
        return x.contiguous().view(getattr(self._torch, dtype))

    def bit_field(self, x: Array, first: int, width: int) -> Array:
        return (x >> first).bitwise_and_((1 << width) - 1)

    def nonnegative(self, x: Array) -> Array:
        # Comparisons to truth values take five times as long as those to numbers.
        return self._torch.ge(x, 0, out=self._torch.empty_like(x)).to(self._torch.int8).view(self._torch.uint8)

    def signs_and_sums(self, x: Array, width: int, dtype: str, magnitudes: bool) -> tuple[Array, Array]:
        if self._kernels is None:
            return super().signs_and_sums(x, width, dtype, magnitudes)
        return self._kernels.signs_and_sums(x, width, dtype, magnitudes)

    def restorer(self, packed: Array, steps: Array, coding: Coding, dtype: str) -> Cut:
        if self._kernels is None:
            return super().restorer(packed, steps, coding, dtype)
        return self._kernels.restorer(packed, steps, coding, dtype)

    def pack(self, x: Array, width: int) -> Array:
        torch = self._torch
        if self._kernels is not None and width < 8:
            return self._kernels.pack(x, width)
        if not x.shape[0]:
            # It may have strides that no view accepts.
            return self.zeros((0,), "uint8")
        whole = self.padded(x, -(-x.shape[0] // 8) * 8)
        if width == 8 or whole.storage_offset() % 8:
            # A part of a larger array may start where no word can.
            whole = whole.clone()
        if width == 8:
            return whole
        if width == 1:
            return ((whole.view(torch.int64) * _BITS_TOGETHER) >> 49).to(torch.uint8)
        length = WORD_LENGTHS.get(width, 64)
        words = gathered(whole.view(getattr(torch, f"int{length}")), width, length)
        return words.to(torch.uint8) if length < 64 else words.view(torch.uint8).view(-1, 8)[:, :width].reshape(-1)

    def unpack(self, x: Array, width: int, count: int) -> Array:
        torch = self._torch
        if width == 8:
            return x[:count].clone()
        if self._kernels is not None:
            return self._kernels.unpack(x, width, count)
        if width == 1:
            return torch.index_select(self._bytes_of_bits, 0, x.to(torch.int32)).view(torch.uint8)[:count]
        length = WORD_LENGTHS.get(width, 64)
        if length < 64:
            words = x.to(getattr(torch, f"int{length}"))
        else:
            wide = torch.zeros((x.shape[0] // width, 8), dtype=torch.uint8, device=self.device)
            wide[:, :width] = x.view(-1, width)
            words = wide.view(torch.int64).view(-1)
        return spread(words, width, length).view(torch.uint8)[:count]

    @cached_property
    def _bytes_of_bits(self) -> Array:
        """The eight bits of every byte, lowest first, in a byte each: 256 words."""
        bits = np.unpackbits(np.arange(256, dtype=np.uint8).reshape(-1, 1), axis=1, bitorder="little")
        return self._torch.tensor(bits.view("<i8").reshape(-1), device=self.device)

    def top_k(self, x: Array, k: int) -> Array:
        if self._is_numpys(x):
            return self.off_host(_NUMPY.top_k(self.on_host(x), k))
        if k >= x.shape[0]:
            return self.arange(x.shape[0])
        return self._torch.topk(x, k, sorted=False).indices.sort().values

    def largest(self, x: Array, k: int) -> Array:
        if self._is_numpys(x):
            return self.off_host(_NUMPY.largest(self.on_host(x), k))
        return by_groups(self.abs(x), k, self)

    def argmax(self, x: Array) -> Array:
        if self._is_numpys(x):
            return self.off_host(_NUMPY.argmax(self.on_host(x)))
        return self._torch.argmax(x, dim=1)

    def argmax_abs(self, x: Array) -> Array:
        return super().argmax_abs(x) if self._kernels is None else self._kernels.argmax_abs(x)

    def argsort(self, x: Array) -> Array:
        return self._torch.argsort(x, stable=True)

    def cumsum(self, x: Array) -> Array:
        return self._torch.cumsum(x, dim=0, dtype=x.dtype)

    def searchsorted(self, x: Array, values: Array) -> Array:
        return self._torch.searchsorted(x, values)

    def take(self, x: Array, positions: Array) -> Array:
        return x.index_select(0, positions)

    def put_(self, x: Array, positions: Array, values: Array | float) -> Array:
        if x.dim() == 1 and isinstance(values, self._torch.Tensor) and values.dim() == 1:
            return x.scatter_(0, positions, values)
        x[positions] = values
        return x

    def add_at_(self, x: Array, positions: Array, values: Array) -> Array:
        return x.index_add_(0, positions, values)

    def add_around_(self, x: Array, start: int, y: Array) -> Array:
        first = min(x.shape[0] - start, y.shape[0])
        x[start : start + first].add_(y[:first])
        if first < y.shape[0]:
            x[: y.shape[0] - first].add_(y[first:])
        return x

    def turned_sums(self, x: Array, signs: Sequence[Array], turns: Array, columns: int) -> Array | None:
        if self._kernels is None:
            return super().turned_sums(x, signs, turns, columns)
        return self._kernels.turned_sums(x, signs, turns, columns)

    def turned_medians(self, table: Array, signs: Sequence[Array], turns: Array, memory: Array | None) -> Array | None:
        if self._kernels is None:
            return super().turned_medians(table, signs, turns, memory)
        return self._kernels.turned_medians(table, signs, turns, memory)

    def check(self, holds: Array, message: str) -> None:
        if self.device.type == "cuda":
            self._torch._assert_async(holds, message)
        elif not holds:
            raise CorruptPayloadError(message)

    def abs(self, x: Array) -> Array:
        return self._torch.abs(x)

    def flip(self, x: Array, bits: Array, index: int) -> Array:
        torch = self._torch
        words, width = (torch.int32, 32) if x.dtype == torch.float32 else (torch.int64, 64)
        masks = (bits.to(words) << (width - 1 - index)).bitwise_and_(-1 << (width - 1))
        return masks.bitwise_xor_(x.contiguous().view(words)).view(x.dtype)

    def sqrt(self, x: Array) -> Array:
        return self._torch.sqrt(x)

    def floor(self, x: Array) -> Array:
        return self._torch.floor(x)

    def minimum(self, x: Array, y: Array | float) -> Array:
        return self._torch.minimum(x, y) if isinstance(y, self._torch.Tensor) else self._torch.clamp(x, max=y)

    def maximum(self, x: Array, y: Array | float) -> Array:
        return self._torch.maximum(x, y) if isinstance(y, self._torch.Tensor) else self._torch.clamp(x, min=y)

    def sum(self, x: Array, axis: int | None = None) -> Array:
        return self._torch.sum(x, dtype=x.dtype) if axis is None else x.sum(dim=axis, keepdim=True, dtype=x.dtype)

    def max(self, x: Array, axis: int | None = None) -> Array:
        return self._torch.amax(x) if axis is None else self._torch.amax(x, dim=axis, keepdim=True)

    def max_abs(self, x: Array) -> Array:
        least, greatest = self._torch.aminmax(x)
        return self._torch.maximum(greatest, -least)

    def median(self, x: Array) -> Array:
        return self._torch.sort(x, dim=0).values[x.shape[0] // 2]

    def add_(self, x: Array, y: Array, scale: float = 1.0) -> Array:
        return x.add_(y) if scale == 1.0 else x.add_(y, alpha=scale)

    def scale_(self, x: Array, factor: Any) -> Array:
        return x if isinstance(factor, float) and factor == 1.0 else x.mul_(factor)

    def scale_and_add_(self, x: Array, factor: Any, y: Array) -> Array:
        if isinstance(factor, self._torch.Tensor):
            return self._torch.addcmul(y, x, factor, out=x)
        return x.add_(y) if factor == 1.0 else self._torch.add(y, x, alpha=factor, out=x)

    def squared_(self, x: Array) -> Array:
        return x.mul_(x)

    def rounded_(self, x: Array, thresholds: Array, limit: float) -> Array:
        return self._torch.add(thresholds, x, alpha=limit, out=x).floor_().clamp_(-limit, limit)

    def scale_and_shift_(self, x: Array, scale: float, shift: float) -> Array:
        return self._torch.add(self._torch.tensor(shift, dtype=x.dtype), x, alpha=scale, out=x)

    def finite_or_zero_(self, x: Array) -> Array:
        if self._kernels is not None and self.is_row_major(x):
            return self._kernels.finite_or_zero_(x)
        if self.device.type == "cpu" and x.numel() >= _MANY and self._torch.isfinite(x.sum()):
            return x  # looking is faster than writing, where it waits for nothing
        return x.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)

    def where(self, condition: Array, x: Array, y: Array) -> Array:
        return self._torch.where(condition, x, y)

    def matmul(
        self, a: Array, b: Array, transpose_a: bool = False, transpose_b: bool = False, out: Array | None = None
    ) -> Array:
        left, right = a.t() if transpose_a else a, b.t() if transpose_b else b
        on_processor = self.device.type == "cpu"
        if left.shape[1] > min(left.shape[0], THIN):
            if not on_processor or left.shape[0] > FEW:
                return self._torch.mm(left, right)
            of_rows_or_columns = product_with_rows if transpose_b else product_with_columns
            return of_rows_or_columns(left, b, self._torch)
        # The same steps into new memory as into what is given: roundings must not tell ranks apart.
        if out is None or not self.is_row_major(out):
            out = self._torch.empty((left.shape[0], right.shape[1]), dtype=a.dtype, device=self.device)
        if not on_processor:
            return self._torch.mm(left.contiguous(), right, out=out)
        put_product(out, left.contiguous(), right, self._torch)
        return out

    def subtract_product_(self, x: Array, a: Array, b: Array) -> Array:
        left = a.t().contiguous()
        if self.device.type != "cpu":
            return x.addmm_(left, b, alpha=-1.0)
        subtract_product(x, left, b, self._torch)
        return x

    def keep_rows_(self, x: Array, kept: Array) -> Array:
        # Looking is faster than writing, where it waits for nothing; and nearly always all are kept.
        return x if self.device.type == "cpu" and kept.all() else x.masked_fill_(~kept, 0.0)

    def row_maxima(self, x: Array) -> Array:
        return self._torch.maximum(x.amax(dim=1, keepdim=True), -x.amin(dim=1, keepdim=True))

    def _row_norms(self, x: Array) -> Array:
        return self._torch.linalg.vector_norm(x, dim=1, keepdim=True)

    def orthonormal_rows(self, x: Array) -> Array:
        return self._torch.linalg.qr(x.mT)[0].mT.contiguous()

    def leading_left_vectors(self, x: Array, rank: int) -> Array:
        left, _, _ = self._torch.linalg.svd(x, full_matrices=False)
        return left[:, :rank].t().contiguous()

    def svd(self, x: Array) -> tuple[Array, Array, Array]:
        left, values, right = self._torch.linalg.svd(x, full_matrices=False)
        return left.t().contiguous(), values, right.contiguous()

    def _is_numpys(self, x: Array) -> bool:
        """Return whether NumPy, whose selections are many times as fast on a processor, can work on x where it is."""
        return self.piecewise and x.dtype != self._torch.bfloat16
