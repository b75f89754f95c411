"""Law: results depend on gradients and settings alone: not on order, buckets, other instances or global state."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from cases import (
    EPSILON,
    MODEL,
    NUMPY,
    Library,
    Row,
    assert_close,
    bits,
    bits_of,
    normal_gradients,
    recorded,
    simulator_of,
)

from hvd_compress import RankDisagreementError, Simulator

W = 3
Bits = list[list[dict[str, bytes]]]


def run(row: Row, library: Library, **options: object) -> Bits:
    """Return the bits of every worker's means of three steps."""
    simulator = simulator_of(row, W, library, decay=True)
    steps = [simulator.step(library.arrays(normal_gradients(W, step)), **options) for step in range(3)]
    return [[bits_of(own) for own in means] for means in steps]


def test_the_order_of_workers_makes_no_difference(row: Row) -> None:
    library = Library(row.libraries[0])
    for order in ([2, 1, 0], [1, 2, 0]):
        assert run(row, library, order=order) == recorded(row, library, W).means


def test_equal_settings_give_equal_results(row: Row) -> None:
    """Two runs side by side, step by step, neither disturbs the other."""
    library = Library(row.libraries[-1])
    first, second = simulator_of(row, W, library, decay=True), simulator_of(row, W, library, decay=True)
    for step in range(3):
        gradients = library.arrays(normal_gradients(W, step))
        assert bits_of(first.step(gradients)[0]) == bits_of(second.step(gradients)[0])


@pytest.mark.rows("separable")
def test_a_parameter_does_not_see_the_others(row: Row) -> None:
    """Each parameter alone, in whatever position, gets what it gets in the model: twins are not confused."""
    library = Library(row.libraries[0])
    whole = simulator_of(row, W, library, decay=True)
    alone = {name: simulator_of(row, W, library, decay=True) for name in MODEL}
    for step in range(2):
        gradients = library.arrays(normal_gradients(W, step))
        expected = whole.step(gradients)[0]
        for name, simulator in alone.items():
            mean = simulator.step([{name: own[name]} for own in gradients])[0][name]
            assert_close(mean, expected[name], 100 * EPSILON["float32"], scale=4.0)


def test_buckets_make_no_difference(row: Row) -> None:
    library = Library(row.libraries[-1])
    one, tiny, small = (simulator_of(row, W, library, decay=True, bucket_bytes=size) for size in (float("inf"), 1, 600))
    for step in range(3):
        gradients = library.arrays(normal_gradients(W, step))
        expected = one.step(gradients)[0]
        for many in (tiny, small):
            for name, x in many.step(gradients)[0].items():
                assert_close(x, expected[name], 100 * EPSILON["float32"], scale=4.0)
    assert len(one.plan.buckets) == 1
    # A unit is never cut: the model of a joined row may be one unit, besides those that travel dense.
    assert len(tiny.plan.buckets) >= sum(unit.spec.size > 0 for unit in tiny.plan.units)
    assert tiny.sent_bytes == small.sent_bytes == one.sent_bytes
    if all(len(unit.parameters) == 1 for unit in one.plan.units):
        assert len(tiny.plan.buckets) > len(small.plan.buckets) > 1
        collectives = [s.workers[0].meter.collectives for s in (tiny, small, one)]
        assert collectives[0] > collectives[2] < collectives[1]


@pytest.mark.rows("separable")
def test_the_order_of_parameters_makes_no_difference(row: Row) -> None:
    library = Library(row.libraries[-1])
    straight, turned = simulator_of(row, W, library, decay=True), simulator_of(row, W, library, decay=True)
    for step in range(2):
        gradients = library.arrays(normal_gradients(W, step))
        expected = straight.step(gradients)[0]
        for name, x in turned.step([dict(reversed(own.items())) for own in gradients])[0].items():
            assert_close(x, expected[name], 100 * EPSILON["float32"], scale=4.0)


def test_dictionary_order_after_the_first_step_makes_no_difference(row: Row) -> None:
    """On any worker, alone: once planned, gradients are known by their names."""
    library = Library(row.libraries[0])
    turned = simulator_of(row, W, library, decay=True)
    for step in range(3):
        gradients = library.arrays(normal_gradients(W, step))
        mixed = [
            dict(reversed(own.items())) if rank == step % 2 and step else own for rank, own in enumerate(gradients)
        ]
        assert [bits_of(own) for own in turned.step(mixed)] == recorded(row, library, W).means[step]


def test_workers_that_plan_differently_are_told() -> None:
    first, second, third = NUMPY.arrays(normal_gradients(W))
    with pytest.raises(RankDisagreementError):
        Simulator("powersgd", W).step([first, dict(reversed(second.items())), third])


def test_global_random_numbers_are_neither_used_nor_moved(row: Row, library: Library) -> None:
    expected = recorded(row, library, W).means
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    before = random.getstate(), bits(np.random.get_state()[1]), bits(torch.get_rng_state())
    assert run(row, library) == expected
    assert before == (random.getstate(), bits(np.random.get_state()[1]), bits(torch.get_rng_state()))
