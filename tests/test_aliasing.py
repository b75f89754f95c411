"""Law: gradients that go in stay what they are, and means that come out belong to the caller alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cases import Library, Row, bits, normal_gradients, simulator_of

W = 2
SOME_WORLDS = pytest.mark.parametrize("world_size", [1, 3])


def overlap(x: Any, y: Any) -> bool:
    """Return whether two arrays have an element in common."""
    if isinstance(x, torch.Tensor):
        if x.device.type != "cpu":
            return x.numel() > 0 and y.numel() > 0 and x.data_ptr() == y.data_ptr()
        return np.shares_memory(x.numpy(), y.numpy())
    return np.shares_memory(x, y)


@SOME_WORLDS
def test_gradients_are_left_untouched(row: Row, library: Library, world_size: int) -> None:
    simulator = simulator_of(row, world_size, library, decay=True)
    for step in range(3):
        gradients = library.arrays(normal_gradients(world_size, step))
        before = [{name: bits(x) for name, x in own.items()} for own in gradients]
        simulator.step(gradients)
        assert [{name: bits(x) for name, x in own.items()} for own in gradients] == before


@SOME_WORLDS
def test_nothing_that_comes_out_is_shared(row: Row, library: Library, world_size: int) -> None:
    """Means have no element in common with gradients, with state, with one another or with another rank's."""
    simulator = simulator_of(row, world_size, library, decay=True)
    for step in range(2):
        gradients = library.arrays(normal_gradients(world_size, step))
        means = simulator.step(gradients)
    outputs = [x for own in means for x in own.values()]
    inputs = [x for own in gradients for x in own.values()]
    states = [x for worker in simulator.workers for state in worker._states.values() for x in _leaves(state)]
    for i, x in enumerate(outputs):
        assert not any(overlap(x, y) for y in [*outputs[:i], *inputs, *states])


def _leaves(state: dict[str, Any]) -> list[Any]:
    return [x for value in state.values() for x in (_leaves(value) if isinstance(value, dict) else [value])]


def test_what_the_caller_does_with_arrays_afterwards_makes_no_difference(row: Row, library: Library) -> None:
    """Optimizers overwrite gradients and updates in place; the next steps must not notice."""
    careful, careless = simulator_of(row, W, library, decay=True), simulator_of(row, W, library, decay=True)
    for step in range(3):
        expected = careful.step(library.arrays(normal_gradients(W, step)))
        gradients = library.arrays(normal_gradients(W, step))
        means = careless.step(gradients)
        for mine, theirs in zip(means, expected, strict=True):
            assert {name: bits(x) for name, x in mine.items()} == {name: bits(x) for name, x in theirs.items()}
        for own in (*gradients, *means):
            for x in own.values():
                x[...] = float("nan")
