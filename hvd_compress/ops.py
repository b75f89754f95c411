"""Array operations: the one file that knows the array libraries.

Algorithms are written over `ArrayOps`; NumPy is the reference, torch follows it on any device. A library is touched
only if the caller's arrays come from it, and so only once the caller has imported it. Another library is one
more subclass and one more row in `_LIBRARIES`.

Operations that end in an underscore are donated their first argument: they may overwrite it and callers use only
what is returned. No operation waits for a device, but for `to_numpy`.
"""

from __future__ import annotations

import hashlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, final

import numpy as np

from .errors import ConfigurationError

if TYPE_CHECKING:
    import torch

Array = Any


def random_generator(key: Sequence[int | str]) -> np.random.Generator:
    """Return a private generator seeded by `key`, such as (seed, name, step); equal keys give equal streams."""
    digest = hashlib.sha256(repr(tuple(key)).encode()).digest()
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(int.from_bytes(digest[:16], "little"))))


class ArrayOps(ABC):
    """What algorithms may do with arrays, for one array library and device."""

    # --- what an array is ---

    @abstractmethod
    def dtype(self, x: Array) -> str:
        """Return the element type's name, such as "float32"."""

    @final
    def shape(self, x: Array) -> tuple[int, ...]:
        """Return the dimensions."""
        return tuple(int(n) for n in x.shape)

    # --- making and moving ---

    @abstractmethod
    def from_numpy(self, x: np.ndarray[Any, Any]) -> Array:
        """Return a copy of a NumPy array on this device."""

    @abstractmethod
    def to_numpy(self, x: Array) -> np.ndarray[Any, Any]:
        """Return a copy as a NumPy array; waits for the device."""

    @abstractmethod
    def zeros(self, shape: Sequence[int], dtype: str) -> Array:
        """Return zeros."""

    @final
    def normal(self, shape: Sequence[int], dtype: str, key: Sequence[int | str]) -> Array:
        """Return standard normal numbers; the same for the same key on every rank, library and device."""
        wide = random_generator(key).standard_normal(tuple(shape), dtype=np.float64)
        return self.from_numpy(wide.astype(np.dtype(dtype)))

    @abstractmethod
    def copy(self, x: Array) -> Array:
        """Return a contiguous copy."""

    @abstractmethod
    def cast(self, x: Array, dtype: str) -> Array:
        """Return x in another element type; x itself where it has that type already."""

    @abstractmethod
    def reshape(self, x: Array, shape: Sequence[int]) -> Array:
        """Return x in another shape, in row-major order; a view where that is possible."""

    @final
    def flatten(self, x: Array) -> Array:
        """Return x as 1-D."""
        return self.reshape(x, (-1,))

    @abstractmethod
    def concat(self, arrays: Sequence[Array], axis: int = 0) -> Array:
        """Return the arrays joined along `axis`."""

    @abstractmethod
    def split(self, x: Array, sizes: Sequence[int], axis: int = 0) -> list[Array]:
        """Return consecutive pieces of x along `axis`, views where that is possible."""

    @abstractmethod
    def stack(self, arrays: Sequence[Array]) -> Array:
        """Return equal shapes joined along a new first axis."""

    @abstractmethod
    def as_bytes(self, x: Array) -> Array:
        """Return the bits of x as a 1-D uint8 array."""

    @abstractmethod
    def from_bytes(self, x: Array, dtype: str) -> Array:
        """Return the 1-D array whose bits are the 1-D uint8 array x."""

    @abstractmethod
    def to_bfloat16_bits(self, x: Array) -> Array:
        """Return x rounded to the nearest bfloat16 (ties to even), its bits as int16."""

    @abstractmethod
    def from_bfloat16_bits(self, bits: Array, dtype: str) -> Array:
        """Return the numbers whose bfloat16 bits are given as int16."""

    # --- arithmetic ---

    @abstractmethod
    def add_(self, x: Array, y: Array, scale: float = 1.0) -> Array:
        """Return x + scale * y."""

    @abstractmethod
    def scale_(self, x: Array, factor: float) -> Array:
        """Return factor * x."""

    @abstractmethod
    def finite_or_zero_(self, x: Array) -> Array:
        """Return x with every infinity and NaN replaced by zero."""

    @abstractmethod
    def where(self, condition: Array, x: Array, y: Array) -> Array:
        """Return x where condition holds, else y (broadcast)."""

    @abstractmethod
    def matmul(self, a: Array, b: Array, transpose_a: bool = False, transpose_b: bool = False) -> Array:
        """Return the matrix product, row-major."""

    @abstractmethod
    def subtract_product_(self, x: Array, a: Array, b: Array) -> Array:
        """Return x - a^T b for x (n, m), a (r, n), b (r, m)."""

    @abstractmethod
    def row_maxima(self, x: Array) -> Array:
        """Return the largest absolute value of each row, as a column: (r, m) -> (r, 1)."""

    @abstractmethod
    def orthonormal_rows(self, x: Array) -> Array:
        """Return (r, n) with orthonormal rows that span at least the rows of x (r <= n), by Householder QR.

        Defined for every finite x: where x has lower rank the missing rows are filled with an orthonormal complement.
        """

    @abstractmethod
    def leading_left_vectors(self, x: Array, rank: int) -> Array:
        """Return (rank, n): the left singular vectors of x (n, m) with the largest singular values, as rows."""


def _bfloat16_bits(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    bits = np.array(x, np.float32, order="C").view(np.uint32)
    rounded = (bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16
    quiet_nan = (bits >> 16) | np.uint32(0x0040)
    return np.where(np.isnan(x), quiet_nan, rounded).astype(np.uint16).view(np.int16)


class NumPyOps(ArrayOps):
    """Array operations of NumPy: the reference."""

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self)

    def __hash__(self) -> int:
        return hash(type(self))

    def dtype(self, x: Array) -> str:
        return str(np.asarray(x).dtype)

    def from_numpy(self, x: np.ndarray[Any, Any]) -> Array:
        return np.array(x)

    def to_numpy(self, x: Array) -> np.ndarray[Any, Any]:
        return np.array(x)

    def zeros(self, shape: Sequence[int], dtype: str) -> Array:
        return np.zeros(tuple(shape), dtype)

    def copy(self, x: Array) -> Array:
        return np.array(x, order="C")

    def cast(self, x: Array, dtype: str) -> Array:
        # Too large for float16 is inf, as on every other library and on the wire; it is no reason to warn.
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(x).astype(dtype, copy=False)

    def reshape(self, x: Array, shape: Sequence[int]) -> Array:
        return np.asarray(x).reshape(tuple(shape))

    def concat(self, arrays: Sequence[Array], axis: int = 0) -> Array:
        return np.concatenate(list(arrays), axis=axis)

    def split(self, x: Array, sizes: Sequence[int], axis: int = 0) -> list[Array]:
        return list(np.split(x, np.cumsum(list(sizes))[:-1], axis=axis))

    def stack(self, arrays: Sequence[Array]) -> Array:
        return np.stack(list(arrays))

    def as_bytes(self, x: Array) -> Array:
        return np.ascontiguousarray(x).reshape(-1).view(np.uint8)

    def from_bytes(self, x: Array, dtype: str) -> Array:
        return np.array(x).view(np.dtype(dtype))

    def to_bfloat16_bits(self, x: Array) -> Array:
        with np.errstate(over="ignore"):
            return _bfloat16_bits(np.asarray(x))

    def from_bfloat16_bits(self, bits: Array, dtype: str) -> Array:
        wide = np.asarray(np.array(bits, order="C").view(np.uint16).astype(np.uint32) << 16)
        return self.cast(wide.view(np.float32), dtype)

    def add_(self, x: Array, y: Array, scale: float = 1.0) -> Array:
        if x.ndim == 0:
            return np.asarray(x + np.asarray(scale, x.dtype) * y, x.dtype)
        x += y if scale == 1.0 else np.asarray(scale, x.dtype) * y
        return x

    def scale_(self, x: Array, factor: float) -> Array:
        return np.asarray(x * np.asarray(factor, x.dtype), x.dtype)

    def finite_or_zero_(self, x: Array) -> Array:
        return np.nan_to_num(x, copy=False, nan=0.0, posinf=0.0, neginf=0.0)

    def where(self, condition: Array, x: Array, y: Array) -> Array:
        return np.where(condition, x, y)

    def matmul(self, a: Array, b: Array, transpose_a: bool = False, transpose_b: bool = False) -> Array:
        return np.matmul(a.T if transpose_a else a, b.T if transpose_b else b)

    def subtract_product_(self, x: Array, a: Array, b: Array) -> Array:
        x -= np.matmul(a.T, b)
        return x

    def row_maxima(self, x: Array) -> Array:
        return np.max(np.abs(x), axis=1, keepdims=True)

    def orthonormal_rows(self, x: Array) -> Array:
        return np.ascontiguousarray(np.linalg.qr(x.T)[0].T)

    def leading_left_vectors(self, x: Array, rank: int) -> Array:
        left, _, _ = np.linalg.svd(x, full_matrices=False)
        return np.ascontiguousarray(left[:, :rank].T)


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

    def copy(self, x: Array) -> Array:
        return x.clone(memory_format=self._torch.contiguous_format)

    def cast(self, x: Array, dtype: str) -> Array:
        return x.to(getattr(self._torch, dtype))

    def reshape(self, x: Array, shape: Sequence[int]) -> Array:
        return x.reshape(tuple(shape))

    def concat(self, arrays: Sequence[Array], axis: int = 0) -> Array:
        return self._torch.cat(list(arrays), dim=axis)

    def split(self, x: Array, sizes: Sequence[int], axis: int = 0) -> list[Array]:
        return list(self._torch.split(x, list(sizes), dim=axis))

    def stack(self, arrays: Sequence[Array]) -> Array:
        return self._torch.stack(list(arrays))

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

    def add_(self, x: Array, y: Array, scale: float = 1.0) -> Array:
        return x.add_(y, alpha=scale)

    def scale_(self, x: Array, factor: float) -> Array:
        return x.mul_(factor)

    def finite_or_zero_(self, x: Array) -> Array:
        return x.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)

    def where(self, condition: Array, x: Array, y: Array) -> Array:
        return self._torch.where(condition, x, y)

    def matmul(self, a: Array, b: Array, transpose_a: bool = False, transpose_b: bool = False) -> Array:
        return self._torch.mm(a.t() if transpose_a else a, b.t() if transpose_b else b)

    def subtract_product_(self, x: Array, a: Array, b: Array) -> Array:
        return x.addmm_(a.t(), b, alpha=-1.0)

    def row_maxima(self, x: Array) -> Array:
        return self._torch.amax(self._torch.abs(x), dim=1, keepdim=True)

    def orthonormal_rows(self, x: Array) -> Array:
        return self._torch.linalg.qr(x.t())[0].t().contiguous()

    def leading_left_vectors(self, x: Array, rank: int) -> Array:
        left, _, _ = self._torch.linalg.svd(x, full_matrices=False)
        return left[:, :rank].t().contiguous()


_NUMPY = NumPyOps()
_torch_ops_on = lru_cache(maxsize=None)(TorchOps)


def _numpy_ops(x: Array) -> ArrayOps | None:
    return _NUMPY if isinstance(x, (np.ndarray, np.generic)) else None


def _torch_ops(x: Array) -> ArrayOps | None:
    torch = sys.modules.get("torch")
    return _torch_ops_on(x.device) if torch is not None and isinstance(x, torch.Tensor) else None


_LIBRARIES: tuple[Callable[[Array], ArrayOps | None], ...] = (_numpy_ops, _torch_ops)


def ops_of(x: Array) -> ArrayOps:
    """Return the operations for the library and device that hold `x`.

    Raises:
        ConfigurationError: x is not an array of a supported library.
    """
    for library in _LIBRARIES:
        ops = library(x)
        if ops is not None:
            return ops
    raise ConfigurationError(f"{type(x).__name__} is not a supported array; use a NumPy array or a torch tensor.")
