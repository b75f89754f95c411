"""Law: where nothing is lost, what is applied is the plain average, so training is what it is without us."""

from __future__ import annotations

import numpy as np
import pytest
from cases import (
    EPSILON,
    MODEL,
    NUMPY,
    ROWS,
    Library,
    Row,
    assert_close,
    inside,
    normal_gradients,
    simulator_of,
    wide,
)
from ideal import Ideal, two_ways
from oracles.averaging import average_models

from hvd_compress import ConfigurationError, LocalWeightDecay, StepSizeScaling

EXACT = [row for row in ROWS if row.exact]
LINEAR = [row for row in ROWS if row.linear and "numpy" in row.libraries]


@pytest.mark.parametrize("row", [pytest.param(row, id=row.id) for row in EXACT])
@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_exact_rows_average(row: Row, name: str, world_size: int) -> None:
    if name not in row.libraries:
        name = row.libraries[0]
    library = Library(name)
    simulator = simulator_of(row, world_size, library)
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
    for step in range(4):
        gradients = normal_gradients(world_size, step)
        means = many.step(NUMPY.arrays(gradients, "float64"))[0]
        alone = one.step(NUMPY.arrays([average_models(gradients)], "float64"))[0]
        for name in MODEL:
            assert_close(means[name], alone[name], 50 * row.tolerance("float64"), scale=4.0)


@pytest.mark.parametrize("world_size", [3])
def test_what_is_passed_over_travels_as_a_plain_average(row: Row, world_size: int) -> None:
    """Units that are too small to compress lose nothing; among them 0-D and 1-D gradients, for matrix factors."""
    library, ideal = Library(row.libraries[0]), Ideal(row)
    simulator = simulator_of(row, world_size, library)
    for step in range(2):
        gradients = normal_gradients(world_size, step)
        means = simulator.step(library.arrays(gradients))[0]
        expected = ideal.step(gradients)
        dense = [name for unit in simulator.plan.units if unit.dense for name, _ in unit.parameters]
        assert "empty" in dense
        # Matrix factors leave 0-D and 1-D gradients alone, whatever the settings.
        for name in dense + (["scalar", "bias"] if row.factors else []):
            assert_close(means[name], expected[name], row.tolerance(), scale=8.0)


@pytest.mark.rows("votes")
def test_a_vote_is_the_sign_that_most_workers_have(row: Row, library: Library, world_size: int) -> None:
    """Every element is +1 or -1: the sign of the sum of all workers' signs, +1 for a tie and for zero."""
    simulator, ideal = simulator_of(row, world_size, library), Ideal(row)
    for step in range(4):
        gradients = normal_gradients(world_size, step)
        for own in gradients:
            own["matrix"][:3] = 0.0
        means = simulator.step(library.arrays(gradients))[0]
        for name, x in ideal.step(gradients).items():
            assert np.array_equal(wide(means[name]), x), name


@pytest.mark.rows("parameters")
def test_weight_decay_is_added_to_what_is_applied(row: Row, library: Library) -> None:
    """update(g, x) - update(g, 0) = lambda x + mu n with n = mu n + lambda x, whatever the gradients."""
    (part,) = (part for part in inside(row.compressor) if isinstance(part, LocalWeightDecay))
    with_decay, without = simulator_of(row, 2, library, decay=True), simulator_of(row, 2, library)
    parameters = {name: wide(x) for name, x in (with_decay.parameters or {}).items()}
    momentum = 0.0
    for step in range(4):
        gradients = library.arrays(normal_gradients(2, step))
        left, right = with_decay.step(gradients)[0], without.step(gradients)[0]
        momentum = part.momentum * momentum + part.decay
        for unit in with_decay.plan.units:
            for name in (name for name, spec in unit.parameters if spec.size):
                share = (part.decay + part.momentum * momentum) * parameters[name]
                assert_close(wide(left[name]) - wide(right[name]), share, 8 * EPSILON["float32"], scale=8.0)


@pytest.mark.rows("parameters")
def test_weight_decay_without_parameters_is_refused(row: Row) -> None:
    with pytest.raises(ConfigurationError, match="set `parameters`"):
        simulator_of(row, 2, NUMPY, parameters=None).step(NUMPY.arrays(normal_gradients(2)))


def test_a_learning_rate_that_is_needed_and_not_known_is_asked_for(row: Row) -> None:
    if any(isinstance(part, StepSizeScaling) for part in inside(row.compressor)):
        assert row.rate is not None
        simulator = simulator_of(row, 2)
        simulator.learning_rate = None
        with pytest.raises(ConfigurationError, match="set `learning_rate`"):
            simulator.step(NUMPY.arrays(normal_gradients(2)))


@pytest.mark.rows("drawless", "whole")
def test_equal_workers_are_one_worker(row: Row) -> None:
    """W workers with equal gradients give what one of them alone gives, at every step, but for servers of shards."""
    library = Library(row.libraries[0])
    for world_size in (2, 3):
        many, one = simulator_of(row, world_size, library), simulator_of(row, 1, library)
        for step in range(4):
            own = normal_gradients(1, step)[0]
            means = many.step(library.arrays([own] * world_size, "float64"))[0]
            alone = one.step(library.arrays([own], "float64"))[0]
            for unit in many.plan.units:
                for name in (name for name, _ in unit.parameters if not two_ways(unit.operator, unit.spec)):
                    assert_close(means[name], alone[name], 50 * row.tolerance("float64"), scale=8.0)


@pytest.mark.rows("unbiased")
def test_the_mean_over_draws_is_the_average(row: Row) -> None:
    """Within 5 standard errors, along four directions in every tensor; a step is a draw."""
    library, draws = Library(row.libraries[0]), 80
    gradients = normal_gradients(2)
    expected = average_models(gradients)
    generator = np.random.default_rng(5)
    directions = {name: [x, *generator.standard_normal((3, *x.shape))] for name, x in expected.items() if x.size}
    found: dict[str, list[list[float]]] = {name: [] for name in directions}
    simulator = simulator_of(row, 2, library)
    for _ in range(draws):
        means = simulator.step(library.arrays(gradients))[0]
        for name, along in directions.items():
            found[name].append([float(np.sum((wide(means[name]) - expected[name]) * v)) for v in along])
    for name, samples in found.items():
        off, spread = np.mean(samples, axis=0), np.std(samples, axis=0, ddof=1) / np.sqrt(draws)
        assert (np.abs(off) <= 5 * spread + 1e-4).all(), name
