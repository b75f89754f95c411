"""Law: every array library gives what NumPy gives, up to the rounding of its element type."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
import pytest
from cases import EPSILON, NUMPY, Library, Row, assert_close, normal_gradients, simulator_of
from oracles.averaging import average_models
from oracles.rounding import BFLOAT16, FLOAT16, rounded

STEPS = 3
Model = Mapping[str, np.ndarray]


@cache
def representable(world_size: int, step: int) -> list[dict[str, np.ndarray]]:
    """Return gradients that every element type holds exactly."""
    gradients = normal_gradients(world_size, step)
    return [{name: rounded(rounded(x, BFLOAT16), FLOAT16) for name, x in own.items()} for own in gradients]


@cache
def reference(row: Row, world_size: int) -> list[Model]:
    """Return every step's means in float64 NumPy; plain averages where the row is written for another library."""
    gradients = [representable(world_size, step) for step in range(STEPS)]
    if "numpy" not in row.libraries:
        return [average_models(own) for own in gradients]
    simulator = simulator_of(row, world_size)
    return [simulator.step(NUMPY.arrays(own, "float64"))[0] for own in gradients]


def check(row: Row, library: Library, world_size: int, dtype: str) -> None:
    simulator = simulator_of(row, world_size)
    tolerance = 20 * row.tolerance("float64" if dtype == "float64" else "float32") + 4 * EPSILON[dtype]
    for step, expected in enumerate(reference(row, world_size)):
        means = simulator.step(library.arrays(representable(world_size, step), dtype))[0]
        for name, x in expected.items():
            assert_close(means[name], x, tolerance, scale=4.0)


def test_libraries_agree_with_numpy(row: Row, library: Library, world_size: int) -> None:
    check(row, library, world_size, "float32")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_element_types_agree_with_float64(row: Row, library: Library, dtype: str) -> None:
    if dtype in row.dtypes(library):
        check(row, library, 3, dtype)
