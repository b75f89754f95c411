"""The table of cases, and its axes: compressors x array libraries x numbers of workers.

A new compressor is one more row; every generic law then holds it to account.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from row import CUDA as CUDA
from row import EPSILON as EPSILON
from row import HOST as HOST
from row import NUMPY as NUMPY
from row import TENSORFLOW as TENSORFLOW
from row import TORCH as TORCH
from row import HalfPrecision as HalfPrecision
from row import Library as Library
from row import RoundedTo as RoundedTo
from row import Row as Row
from row import is_tensorflow as is_tensorflow
from rows import basic, composition, quantisers, scalecom, signs, sketch, sparse, spectral

import hvd_compress as hc
from hvd_compress.exchange import Plan, Unit, make_plan
from hvd_compress.methods import Method

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
    if is_tensorflow(x):
        return np.array(x.numpy(), np.float64)
    return np.array(x, np.float64)


def bits(x: Any) -> bytes:
    """Return the bits of x; equal for equal arrays only."""
    if isinstance(x, torch.Tensor):
        return x.detach().cpu().flatten().clone().view(torch.uint8).numpy().tobytes() if x.numel() else b""
    if is_tensorflow(x):
        return np.ascontiguousarray(x.numpy()).tobytes()
    return np.ascontiguousarray(x).tobytes()


def whole(x: Any) -> list[int]:
    """Return an array of whole numbers as a list."""
    return [int(n) for n in wide(x).ravel()]


def overwrite(x: Any, value: float) -> None:
    """Put `value` everywhere in x, as its owner may; a tensor of TensorFlow never changes."""
    if not is_tensorflow(x):
        x[...] = value


def dtype_of(x: Any) -> str:
    """Return the element type's name."""
    return x.dtype.name if is_tensorflow(x) else str(x.dtype).removeprefix("torch.")


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


ROWS = [
    *basic.ROWS,
    *composition.ROWS,
    *signs.ROWS,
    *scalecom.ROWS,
    *spectral.ROWS,
    *sketch.ROWS,
    *quantisers.ROWS,
    *sparse.ROWS,
]


def simulator_of(
    row: Row, world_size: int, library: Library = NUMPY, *, decay: bool = False, **more: Any
) -> hc.Simulator:
    """Return workers that use the row's compressor on gradients however small, so that its laws are tried on them.

    Args:
        row: of the table.
        world_size: number of workers.
        library: that the gradients will be of.
        decay: parameters are random numbers; otherwise zeros, so that no weight decay is part of the update.
        more: of the simulator's options.
    """
    if row.parameters:
        more.setdefault("parameters", parameters_of(library, decay))
    return hc.Simulator(row.compressor, world_size, allow_larger=True, learning_rate=row.rate, **more)


@dataclass(frozen=True)
class Record:
    """What a run of three steps gave: by step and worker the bits of every mean, and the bytes sent so far."""

    means: list[list[dict[str, bytes]]]
    sent: list[int]
    plan: Plan


@lru_cache(maxsize=4096)
def recorded(row: Row, library: Library, world_size: int) -> Record:
    """Run the row undisturbed on normal gradients, once for all laws that compare with that."""
    simulator = simulator_of(row, world_size, library, decay=True)
    means, sent = [], []
    for step in range(3):
        stepped = simulator.step(library.arrays(normal_gradients(world_size, step)))
        means.append([bits_of(own) for own in stepped])
        sent.append(simulator.sent_bytes)
    return Record(means, sent, simulator.plan)


def bits_of(means: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the bits of every mean by parameter."""
    return {name: bits(x) for name, x in means.items()}


def parameters_of(
    library: Library, decay: bool, shapes: Mapping[str, tuple[int, ...]] = MODEL, dtype: str = "float32"
) -> dict[str, Any]:
    """Return the model's parameters: random numbers, or zeros without `decay`."""
    values = normal_gradients(1, 0, shapes, seed=99)[0]
    return {name: library.array(x if decay else np.zeros_like(x), dtype) for name, x in values.items()}


def unit_of(row: Row, spec: hc.Spec, world_size: int) -> Unit:
    """Return how the row's compressor works on a model of one parameter, "g"."""
    return make_plan(row.compressor, [("g", spec)], world_size, allow_larger=True).units[0]


def inside(compressor: Any) -> list[Any]:
    """Return a compressor and everything in it, methods taken apart."""
    if isinstance(compressor, Method):
        return [compressor, *inside(compressor.expression())]
    return [compressor, *(part for item in _held(vars(compressor)) for part in inside(item))]


def memory_of(row: Row) -> tuple[float, float] | None:
    """Return the weights (a, b) of the row's memory of what was not sent, under momentum or not; None without."""
    if row.memory or row.votes:
        return row.memory
    for part in inside(row.compressor):
        if isinstance(part, hc.ErrorFeedback):
            return (part.a, part.b)
        if isinstance(part, hc.MomentumCorrection):
            return (1.0, 1.0)
    return None


def public_compressors() -> list[type]:
    """Return every compressor class that the package exports, but for the two contracts."""
    exported = (getattr(hc, name) for name in hc.__all__)
    classes = [item for item in exported if isinstance(item, type) and issubclass(item, (hc.Operator, hc.Codec))]
    return [item for item in classes if item not in (hc.Operator, hc.Codec)]


def parts_of(compressor: Any) -> list[Any]:
    """Return a compressor and everything that it is made of."""
    return [compressor, *(part for item in _held(vars(compressor)) for part in parts_of(item))]


def _held(value: Any) -> list[Any]:
    """Return the compressors that a setting holds: one, or several in a table."""
    if isinstance(value, (hc.Operator, hc.Codec)):
        return [value]
    if isinstance(value, Mapping):
        value = tuple(value.values())
    return [item for each in value for item in _held(each)] if isinstance(value, (tuple, list)) else []
