"""Array operations of torch, on any device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CorruptPayloadError
from .base import PIECE, Array, ArrayOps, Part, fill_by_pieces

if TYPE_CHECKING:
    import torch


class TorchOps(ArrayOps):
    """Array operations of torch on one device; kernels are queued on the current stream."""

    def __init__(self, device: torch.device) -> None:
        import torch

        self._torch = torch
        self.device = device

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TorchOps) and other.device == self.device

    def __hash__(self) -> int:
        return hash(self.device)

    def dtype(self, x: Array) -> str:
        return str(x.dtype).removeprefix("torch.")

    def from_numpy(self, x: np.ndarray[Any, Any]) -> Array:
        return self._torch.tensor(x, device=self.device)

    def to_numpy(self, x: Array) -> np.ndarray[Any, Any]:
        return np.array(x.detach().cpu().numpy())

    def zeros(self, shape: Sequence[int], dtype: str) -> Array:
        return self._torch.zeros(tuple(shape), dtype=getattr(self._torch, dtype), device=self.device)

    def arange(self, size: int, dtype: str = "int64") -> Array:
        return self._torch.arange(size, dtype=getattr(self._torch, dtype), device=self.device)

    def copy(self, x: Array) -> Array:
        return x.clone(memory_format=self._torch.contiguous_format)

    def cast(self, x: Array, dtype: str) -> Array:
        return x.to(getattr(self._torch, dtype))

    def reshape(self, x: Array, shape: Sequence[int]) -> Array:
        return x if x.shape == shape else x.reshape(tuple(shape))

    def concat(self, arrays: Sequence[Array], axis: int = 0) -> Array:
        return self._torch.cat(list(arrays), dim=axis)

    def split(self, x: Array, sizes: Sequence[int], axis: int = 0) -> list[Array]:
        return list(self._torch.split(x, list(sizes), dim=axis))

    def stack(self, arrays: Sequence[Array]) -> Array:
        return self._torch.stack(list(arrays))

    def by_pieces(self, part: Part, size: int, unit: int, outputs: Sequence[tuple[int, str]]) -> list[Array]:
        if self.device.type != "cpu" or size <= PIECE:
            return list(part(0, size))
        torch = self._torch
        return fill_by_pieces(part, size, unit, [torch.empty(n, dtype=getattr(torch, dtype)) for n, dtype in outputs])

    def as_bytes(self, x: Array) -> Array:
        # An empty tensor may have strides that no view accepts.
        return x.contiguous().reshape(-1).view(self._torch.uint8) if x.numel() else self.zeros((0,), "uint8")

    def from_bytes(self, x: Array, dtype: str) -> Array:
        # A piece of a larger buffer may start at an address that the wider type cannot have.
        return x.clone().view(getattr(self._torch, dtype))

    def to_bfloat16_bits(self, x: Array) -> Array:
        return x.to(self._torch.bfloat16).contiguous().view(self._torch.int16)

    def from_bfloat16_bits(self, bits: Array, dtype: str) -> Array:
        return bits.contiguous().view(self._torch.bfloat16).to(getattr(self._torch, dtype))

    def bitcast(self, x: Array, dtype: str) -> Array:
        return x.contiguous().view(getattr(self._torch, dtype))

    def pack(self, x: Array, width: int) -> Array:
        torch = self._torch
        whole = self.padded(x, -(-x.shape[0] // 8) * 8)
        if 8 % width == 0:
            groups, packed = whole.view(-1, 8 // width), None
            for i in range(8 // width):
                part = groups[:, i] << (i * width) if i else groups[:, 0].clone()
                packed = part if packed is None else packed.bitwise_or_(part)
            return packed
        groups = whole.view(-1, 8)
        words = torch.zeros(groups.shape[0], dtype=torch.int64, device=self.device)
        for i in range(8):
            words |= groups[:, i].to(torch.int64) << (i * width)
        return words.view(torch.uint8).view(-1, 8)[:, :width].reshape(-1)

    def unpack(self, x: Array, width: int, count: int) -> Array:
        torch = self._torch
        mask = (1 << width) - 1
        if 8 % width == 0:
            numbers = [(x >> (i * width)) & mask for i in range(8 // width)]
            return torch.stack(numbers, dim=1).view(-1)[:count]
        wide = torch.zeros((x.shape[0] // width, 8), dtype=torch.uint8, device=self.device)
        wide[:, :width] = x.view(-1, width)
        words = wide.view(torch.int64).view(-1)
        numbers = [((words >> (i * width)) & mask).to(torch.uint8) for i in range(8)]
        return torch.stack(numbers, dim=1).view(-1)[:count]

    def top_k(self, x: Array, k: int) -> Array:
        if k >= x.shape[0]:
            return self.arange(x.shape[0])
        return self._torch.topk(x, k, sorted=False).indices.sort().values

    def argmax(self, x: Array) -> Array:
        return self._torch.argmax(x, dim=1)

    def argsort(self, x: Array) -> Array:
        return self._torch.argsort(x, stable=True)

    def cumsum(self, x: Array) -> Array:
        return self._torch.cumsum(x, dim=0, dtype=x.dtype)

    def searchsorted(self, x: Array, values: Array) -> Array:
        return self._torch.searchsorted(x, values)

    def take(self, x: Array, positions: Array) -> Array:
        return x[positions]

    def put_(self, x: Array, positions: Array, values: Array | float) -> Array:
        x[positions] = values
        return x

    def add_at_(self, x: Array, positions: Array, values: Array) -> Array:
        return x.index_add_(0, positions, values)

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
        masks = (bits.to(words) << (width - 1 - index)) & (-1 << (width - 1))
        return masks.bitwise_xor_(x.contiguous().view(words)).view(x.dtype)

    def sqrt(self, x: Array) -> Array:
        return self._torch.sqrt(x)

    def floor(self, x: Array) -> Array:
        return self._torch.floor(x)

    def minimum(self, x: Array, y: Array | float) -> Array:
        return self._torch.clamp(x, max=y)

    def maximum(self, x: Array, y: Array | float) -> Array:
        return self._torch.clamp(x, min=y)

    def sum(self, x: Array, axis: int | None = None) -> Array:
        return self._torch.sum(x, dtype=x.dtype) if axis is None else x.sum(dim=axis, keepdim=True, dtype=x.dtype)

    def max(self, x: Array, axis: int | None = None) -> Array:
        return self._torch.amax(x) if axis is None else self._torch.amax(x, dim=axis, keepdim=True)

    def median(self, x: Array) -> Array:
        return self._torch.sort(x, dim=0).values[x.shape[0] // 2]

    def add_(self, x: Array, y: Array, scale: float = 1.0) -> Array:
        return x.add_(y) if scale == 1.0 else x.add_(y, alpha=scale)

    def scale_(self, x: Array, factor: Any) -> Array:
        return x.mul_(factor)

    def finite_or_zero_(self, x: Array) -> Array:
        return x.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)

    def where(self, condition: Array, x: Array, y: Array) -> Array:
        return self._torch.where(condition, x, y)

    def matmul(
        self, a: Array, b: Array, transpose_a: bool = False, transpose_b: bool = False, out: Array | None = None
    ) -> Array:
        left, right = a.t() if transpose_a else a, b.t() if transpose_b else b
        return self._torch.mm(left, right, out=out) if out is not None else self._torch.mm(left, right)

    def subtract_product_(self, x: Array, a: Array, b: Array) -> Array:
        return x.addmm_(a.t(), b, alpha=-1.0)

    def row_maxima(self, x: Array) -> Array:
        return self._torch.amax(self._torch.abs(x), dim=1, keepdim=True)

    def orthonormal_rows(self, x: Array) -> Array:
        return self._torch.linalg.qr(x.mT)[0].mT.contiguous()

    def leading_left_vectors(self, x: Array, rank: int) -> Array:
        left, _, _ = self._torch.linalg.svd(x, full_matrices=False)
        return left[:, :rank].t().contiguous()

    def svd(self, x: Array) -> tuple[Array, Array, Array]:
        left, values, right = self._torch.linalg.svd(x, full_matrices=False)
        return left.t().contiguous(), values, right.contiguous()
