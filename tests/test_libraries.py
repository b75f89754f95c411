"""Law: every array library gives what NumPy gives, up to the rounding of its element type."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from unittest import mock

import numpy as np
import pytest
from cases import EPSILON, MODEL, NUMPY, Library, Row, normal_gradients, simulator_of, wide
from oracles.averaging import average_models
from oracles.rounding import FORMATS, rounded

from hvd_compress.ops import NumPyOps

STEPS = 2
Model = Mapping[str, np.ndarray]


@cache
def representable(world_size: int, step: int, dtype: str) -> list[dict[str, np.ndarray]]:
    """Return gradients that the element type holds exactly."""
    gradients = normal_gradients(world_size, step)
    if dtype not in FORMATS:
        return [{name: x.astype(dtype).astype(np.float64) for name, x in own.items()} for own in gradients]
    return [{name: rounded(x, FORMATS[dtype]) for name, x in own.items()} for own in gradients]


@cache
def reference(row: Row, world_size: int, dtype: str, output_axis: int) -> tuple[list[Model], list[str]]:
    """Return every step's means in NumPy, and the units; plain averages where the row is for another library.

    Matrices are those of a library whose kernels have their outputs on `output_axis`. In float64, but for joined rows
    in float32: how many parameters make a unit depends on their bytes.
    """
    gradients = [representable(world_size, step, dtype) for step in range(STEPS)]
    if "numpy" not in row.libraries:
        return [average_models(own) for own in gradients], list(MODEL)
    simulator = simulator_of(row, world_size, NUMPY, decay=True)
    wide_dtype = "float32" if row.joined and dtype != "float64" else "float64"
    with mock.patch.object(NumPyOps, "output_axis", output_axis):
        simulator.set_up(NUMPY.arrays(gradients[0], wide_dtype))
    means = [simulator.step(NUMPY.arrays(own, wide_dtype))[0] for own in gradients]
    return means, [unit.name for unit in simulator.plan.units]


def check(row: Row, library: Library, world_size: int, dtype: str) -> None:
    """All elements agree, up to rounding; where a rounding can turn a decision, all but few of them."""
    simulator = simulator_of(row, world_size, library, decay=True)
    tolerance = 20 * row.tolerance("float64" if dtype == "float64" else "float32") + 4 * EPSILON[dtype]
    references, units = reference(row, world_size, dtype, library.output_axis)
    for step, expected in enumerate(references):
        means = simulator.step(library.arrays(representable(world_size, step, dtype), dtype))[0]
        if row.joined and [unit.name for unit in simulator.plan.units] != units:
            return  # joined by bytes: there is nothing to compare with
        scale = max(4.0, *(np.abs(x).max(initial=0.0) for x in expected.values()))
        off = [np.abs(wide(means[name]) - x) > tolerance * scale for name, x in expected.items()]
        turned = sum(int(np.sum(x)) for x in off)
        allowed = 0 if row.settled else 0.02 * sum(x.size for x in off)
        assert turned <= allowed, f"step {step}: {turned} elements differ"


@pytest.mark.complete
def test_libraries_agree_with_numpy(row: Row, library: Library, world_size: int) -> None:
    check(row, library, world_size, "float32")


def test_element_types_agree_with_float64(row: Row, library: Library) -> None:
    for dtype in row.dtypes(library):
        check(row, library, 3, dtype)
