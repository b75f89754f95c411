"""Law: a biased compressor is a contraction, ||x - C(x)||^2 <= (1 - delta) ||x||^2, with its own delta."""

from __future__ import annotations

import numpy as np
import pytest
from cases import EPSILON, MODEL, ROWS, Library, Row, normal_gradients, simulator_of, wide
from hypothesis import given
from hypothesis import strategies as st

from hvd_compress import Spec

MATRICES = {name: shape for name, shape in MODEL.items() if 0 not in shape}


def check(row: Row, library: Library, gradients: dict[str, np.ndarray], steps: int) -> None:
    simulator = simulator_of(row, 1, library)
    for _ in range(steps):
        means = simulator.step(library.arrays([gradients]))[0]
        for name, x in gradients.items():
            lost, whole = np.sum((x - wide(means[name])) ** 2), np.sum(x**2)
            bound = row.bound(*Spec(x.shape).matrix_shape)
            assert lost <= (bound + (100 * EPSILON["float32"]) ** 2 + 1e-5 * bound) * whole, name


def test_contraction(row: Row, library: Library) -> None:
    """At the first step; and at later ones, with whatever warm start they have, where nothing is fed back."""
    for seed in range(3):
        check(row, library, normal_gradients(1, 0, MATRICES, seed)[0], 1 if row.memory else 4)


@pytest.mark.parametrize("name", ["numpy", "torch"])
@given(n=st.integers(1, 9), m=st.integers(1, 9), seed=st.integers(0, 99))
def test_contraction_for_any_matrix(name: str, n: int, m: int, seed: int) -> None:
    for row in ROWS:
        if name in row.libraries and row.factors:
            check(row, Library(name), normal_gradients(1, 0, {"w": (n, m)}, seed)[0], 1 if row.memory else 3)
