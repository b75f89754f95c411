"""Law: results depend on gradients and settings alone: not on order, buckets, other instances or global state."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from cases import EPSILON, MODEL, NUMPY, Library, Row, assert_close, bits, normal_gradients, simulator_of

from hvd_compress import RankDisagreementError, Simulator

W = 3
Bits = list[list[dict[str, bytes]]]


def run(simulator: Simulator, library: Library, **options: object) -> Bits:
    """Return the bits of every worker's means of three steps."""
    steps = [simulator.step(library.arrays(normal_gradients(W, step)), **options) for step in range(3)]
    return [[{name: bits(x) for name, x in own.items()} for own in means] for means in steps]


def test_the_order_of_workers_makes_no_difference(row: Row, library: Library) -> None:
    expected = run(simulator_of(row, W, library, decay=True), library)
    for order in ([2, 1, 0], [1, 2, 0]):
        assert run(simulator_of(row, W, library, decay=True), library, order=order) == expected


def test_equal_settings_give_equal_results(row: Row, library: Library) -> None:
    """Two runs side by side, step by step, neither disturbs the other."""
    first, second = simulator_of(row, W, library, decay=True), simulator_of(row, W, library, decay=True)
    for step in range(3):
        gradients = library.arrays(normal_gradients(W, step))
        left, right = first.step(gradients)[0], second.step(gradients)[0]
        assert {name: bits(x) for name, x in left.items()} == {name: bits(x) for name, x in right.items()}


def test_a_parameter_does_not_see_the_others(row: Row, library: Library) -> None:
    """Each parameter alone, in whatever position, gets what it gets in the model: twins are not confused."""
    whole = simulator_of(row, W, library, decay=True)
    alone = {name: simulator_of(row, W, library, decay=True) for name in MODEL}
    for step in range(2):
        gradients = library.arrays(normal_gradients(W, step))
        expected = whole.step(gradients)[0]
        for name, simulator in alone.items():
            mean = simulator.step([{name: own[name]} for own in gradients])[0][name]
            assert_close(mean, expected[name], 100 * EPSILON["float32"], scale=4.0)


@pytest.mark.parametrize("bucket_bytes", [1, 600])
def test_buckets_make_no_difference(row: Row, library: Library, bucket_bytes: float) -> None:
    one, many = simulator_of(row, W, library, decay=True), simulator_of(row, W, library, decay=True, bucket_bytes=bucket_bytes)
    for step in range(3):
        gradients = library.arrays(normal_gradients(W, step))
        expected = one.step(gradients)[0]
        for name, x in many.step(gradients)[0].items():
            assert_close(x, expected[name], 100 * EPSILON["float32"], scale=4.0)
    assert len(many.plan.buckets) > len(one.plan.buckets) == 1
    assert many.sent_bytes == one.sent_bytes
    assert many.workers[0].meter.collectives > one.workers[0].meter.collectives


def test_the_order_of_parameters_makes_no_difference(row: Row, library: Library) -> None:
    straight, turned = simulator_of(row, W, library, decay=True), simulator_of(row, W, library, decay=True)
    for step in range(2):
        gradients = library.arrays(normal_gradients(W, step))
        expected = straight.step(gradients)[0]
        for name, x in turned.step([dict(reversed(own.items())) for own in gradients])[0].items():
            assert_close(x, expected[name], 100 * EPSILON["float32"], scale=4.0)


def test_dictionary_order_after_the_first_step_makes_no_difference(row: Row, library: Library) -> None:
    """On any worker, alone: once planned, gradients are known by their names."""
    straight, turned = simulator_of(row, W, library, decay=True), simulator_of(row, W, library, decay=True)
    for step in range(3):
        gradients = library.arrays(normal_gradients(W, step))
        mixed = [
            dict(reversed(own.items())) if rank == step % 2 and step else own for rank, own in enumerate(gradients)
        ]
        left, right = straight.step(gradients), turned.step(mixed)
        for mine, theirs in zip(left, right, strict=True):
            assert {name: bits(x) for name, x in mine.items()} == {name: bits(theirs[name]) for name in mine}


def test_workers_that_plan_differently_are_told() -> None:
    first, second, third = NUMPY.arrays(normal_gradients(W))
    with pytest.raises(RankDisagreementError):
        Simulator("powersgd", W).step([first, dict(reversed(second.items())), third])


def test_global_random_numbers_are_neither_used_nor_moved(row: Row, library: Library) -> None:
    expected = run(simulator_of(row, W, library, decay=True), library)
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        before = random.getstate(), bits(np.random.get_state()[1]), bits(torch.get_rng_state())
        assert run(simulator_of(row, W, library, decay=True), library) == expected
        assert before == (random.getstate(), bits(np.random.get_state()[1]), bits(torch.get_rng_state()))
