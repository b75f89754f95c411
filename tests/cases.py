"""The table of cases, and its axes: compressors x array libraries x numbers of workers.

A new compressor is one more row; every generic law then holds it to account.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from row import CUDA as CUDA
from row import EPSILON as EPSILON
from row import NUMPY as NUMPY
from row import TORCH as TORCH
from row import HalfPrecision as HalfPrecision
from row import Library as Library
from row import RoundedTo as RoundedTo
from row import Row as Row
from rows import basic

import hvd_compress as hc

WORLD_SIZES = (1, 2, 3, 4)

# One small model that holds every kind of shape; "matrix" and "twin" must not be taken for one another.
MODEL: dict[str, tuple[int, ...]] = {
    "scalar": (),
    "bias": (7,),
    "matrix": (12, 9),
    "twin": (12, 9),
    "conv": (6, 4, 3, 3),
    "wide": (2, 31),
    "tall": (33, 2),
    "single": (1, 1),
    "empty": (3, 0),
}


def wide(x: Any) -> np.ndarray:
    """Return the numbers in x as float64 NumPy."""
    if isinstance(x, torch.Tensor):
        return x.detach().cpu().to(torch.float64).numpy().copy()
    return np.array(x, np.float64)


def bits(x: Any) -> bytes:
    """Return the bits of x; equal for equal arrays only."""
    if isinstance(x, torch.Tensor):
        return x.detach().cpu().flatten().clone().view(torch.uint8).numpy().tobytes() if x.numel() else b""
    return np.ascontiguousarray(x).tobytes()


def dtype_of(x: Any) -> str:
    """Return the element type's name."""
    return str(x.dtype).removeprefix("torch.")


def normal_gradients(
    world_size: int, step: int = 0, shapes: Mapping[str, tuple[int, ...]] = MODEL, seed: int = 0
) -> list[dict[str, np.ndarray]]:
    """Return every worker's gradients, float64, different for every step and worker."""
    generators = [np.random.default_rng([seed, step, rank]) for rank in range(world_size)]
    return [{name: g.standard_normal(shape) for name, shape in shapes.items()} for g in generators]


def assert_close(actual: Any, expected: Any, tolerance: float, scale: float | None = None) -> None:
    """Check that no element differs by more than `tolerance` x `scale`: by default the largest number expected."""
    actual, expected = wide(actual), wide(expected)
    assert actual.shape == expected.shape
    reference = np.abs(expected).max(initial=0.0) if scale is None else scale
    error = np.abs(actual - expected).max(initial=0.0)
    assert error <= tolerance * reference, f"off by {error:g}, allowed {tolerance * reference:g}"


ROWS = [*basic.ROWS]


def simulator_of(row: Row, world_size: int, **more: Any) -> hc.Simulator:
    """Return workers that use the row's compressor on gradients however small, so that its laws are tried on them."""
    return hc.Simulator(row.compressor, world_size, allow_larger=True, **more)


def public_compressors() -> list[type]:
    """Return every compressor class that the package exports, but for the two contracts."""
    exported = (getattr(hc, name) for name in hc.__all__)
    classes = [item for item in exported if isinstance(item, type) and issubclass(item, (hc.Operator, hc.Codec))]
    return [item for item in classes if item not in (hc.Operator, hc.Codec)]


def parts_of(compressor: Any) -> list[Any]:
    """Return a compressor and everything that it is made of."""
    inner = [value for value in vars(compressor).values() if isinstance(value, (hc.Operator, hc.Codec))]
    return [compressor, *(part for item in inner for part in parts_of(item))]
