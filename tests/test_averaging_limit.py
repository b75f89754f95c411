"""Law: where nothing is lost, what is applied is the plain average, so training is what it is without us."""

from __future__ import annotations

import pytest
from cases import MODEL, NUMPY, ROWS, Library, Row, assert_close, normal_gradients, simulator_of
from oracles.averaging import average_models

EXACT = [row for row in ROWS if row.exact]
LINEAR = [row for row in ROWS if row.linear and "numpy" in row.libraries]


@pytest.mark.parametrize("row", [pytest.param(row, id=row.id) for row in EXACT])
@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_exact_rows_average(row: Row, name: str, world_size: int) -> None:
    if name not in row.libraries:
        name = row.libraries[0]
    library = Library(name)
    simulator = simulator_of(row, world_size)
    for step in range(3):
        gradients = normal_gradients(world_size, step)
        expected = average_models(gradients)
        means = simulator.step(library.arrays(gradients, "float64"))[0]
        for parameter, x in expected.items():
            assert_close(means[parameter], x, row.tolerance("float64"), scale=4.0)


@pytest.mark.parametrize("row", [pytest.param(row, id=row.id) for row in LINEAR])
def test_linear_rows_do_not_see_how_the_mean_is_split(row: Row, world_size: int) -> None:
    """W workers give what one worker with the mean gradient gives, at every step, whatever the split."""
    many, one = simulator_of(row, world_size), simulator_of(row, 1)
    for step in range(5):
        gradients = normal_gradients(world_size, step)
        means = many.step(NUMPY.arrays(gradients, "float64"))[0]
        alone = one.step(NUMPY.arrays([average_models(gradients)], "float64"))[0]
        for name in MODEL:
            assert_close(means[name], alone[name], 50 * row.tolerance("float64"), scale=4.0)


def test_what_saves_nothing_travels_as_a_plain_average(row: Row, world_size: int) -> None:
    """0-D and 1-D gradients are never factored, whatever the settings."""
    library = Library(row.libraries[0])
    shapes = {"scalar": (), "bias": (7,)}
    simulator = simulator_of(row, world_size)
    for step in range(2):
        gradients = normal_gradients(world_size, step, shapes)
        means = simulator.step(library.arrays(gradients))[0]
        for name, x in average_models(gradients).items():
            assert_close(means[name], x, row.tolerance(), scale=4.0)
