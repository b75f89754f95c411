"""Law: a biased compressor is a contraction, ||x - C(x)||^2 <= (1 - delta) ||x||^2, with its own delta.

Where it rounds or picks at random the bound holds on average over draws, also of an unbiased one: it is its variance.
"""

from __future__ import annotations

import numpy as np
import pytest
from cases import EPSILON, MODEL, ROWS, Library, Row, memory_of, normal_gradients, simulator_of, wide
from hypothesis import given
from hypothesis import strategies as st
from ideal import Ideal

from hvd_compress.exchange import Unit

MATRICES = {name: shape for name, shape in MODEL.items() if 0 not in shape}
DRAWS = 20
Model = dict[str, np.ndarray]


def losses(row: Row, library: Library, gradients: Model, steps: int) -> list[tuple[Unit, float]]:
    """Return for every unit and step the share of the squared norm that is lost, on one worker."""
    simulator, ideal = simulator_of(row, 1, library), Ideal(row)
    found = []
    for _ in range(steps):
        means = simulator.step(library.arrays([gradients]))[0]
        expected = ideal.step([gradients])
        for unit in simulator.plan.units:
            names = [name for name, _ in unit.parameters]
            lost = sum(float(np.sum((expected[name] - wide(means[name])) ** 2)) for name in names)
            found.append((unit, lost / sum(float(np.sum(expected[name] ** 2)) for name in names)))
    return found


def bound_of(row: Row, unit: Unit) -> float:
    bound = row.bound(*unit.spec.matrix_shape)
    return bound + (100 * EPSILON["float32"]) ** 2 + 1e-5 * bound


@pytest.mark.rows("averages", "drawless")
def test_contraction(row: Row, library: Library) -> None:
    """At the first step; and at later ones, with whatever warm start they have, where nothing is fed back."""
    steps = 1 if memory_of(row) or row.server else 4
    for seed in range(3):
        for unit, lost in losses(row, library, normal_gradients(1, 0, MATRICES, seed)[0], steps):
            assert lost <= bound_of(row, unit), unit.name


@pytest.mark.rows("averages", "random")
def test_contraction_on_average(row: Row) -> None:
    """Every name draws by itself: the mean of so many draws is within 5 standard errors of the bound."""
    library = Library(row.libraries[0])
    gradients = normal_gradients(1, 0, MATRICES)[0]
    drawn = [losses(row, library, {f"{draw}.{name}": x for name, x in gradients.items()}, 1) for draw in range(DRAWS)]
    for draws in zip(*drawn, strict=True):
        shares = [lost for _, lost in draws]
        error = float(np.std(shares, ddof=1)) / np.sqrt(DRAWS)
        assert np.mean(shares) - 5 * error <= bound_of(row, draws[0][0]), draws[0][0].name


@pytest.mark.parametrize("name", ["numpy", "torch"])
@given(n=st.integers(1, 9), m=st.integers(1, 9), seed=st.integers(0, 99))
def test_contraction_for_any_matrix(name: str, n: int, m: int, seed: int) -> None:
    for row in ROWS:
        if name in row.libraries and row.factors and not (row.random or row.parameters):
            steps = 1 if memory_of(row) else 3
            for unit, lost in losses(row, Library(name), normal_gradients(1, 0, {"w": (n, m)}, seed)[0], steps):
                assert lost <= bound_of(row, unit), row.id
