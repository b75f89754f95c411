"""Law: gradients that go in stay what they are, and means that come out belong to the caller alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cases import Library, Row, bits_of, normal_gradients, recorded, simulator_of

W = 2
WORLDS = (1, 2)


def overlap(x: Any, y: Any) -> bool:
    """Return whether two arrays have an element in common."""
    if isinstance(x, torch.Tensor):
        if x.device.type != "cpu":
            return x.numel() > 0 and y.numel() > 0 and x.data_ptr() == y.data_ptr()
        return np.shares_memory(x.numpy(), y.numpy())
    return np.shares_memory(x, y)


@pytest.mark.mutable
def test_gradients_are_left_untouched(row: Row, library: Library) -> None:
    for world_size in WORLDS:
        simulator = simulator_of(row, world_size, library, decay=True)
        for step in range(2):
            gradients = library.arrays(normal_gradients(world_size, step))
            before = [bits_of(own) for own in gradients]
            simulator.step(gradients)
            assert [bits_of(own) for own in gradients] == before


@pytest.mark.mutable
def test_nothing_that_comes_out_is_shared(row: Row, library: Library) -> None:
    """Means have no element in common with gradients, with state, with one another or with another rank's."""
    for world_size in WORLDS:
        simulator = simulator_of(row, world_size, library, decay=True)
        for step in range(2):
            gradients = library.arrays(normal_gradients(world_size, step))
            means = simulator.step(gradients)
        outputs = [x for own in means for x in own.values()]
        inputs = [x for own in gradients for x in own.values()]
        states = [x for worker in simulator.workers for x in worker._states.arrays()]
        kept = [*inputs, *states, *(simulator.parameters or {}).values()]
        for i, x in enumerate(outputs):
            assert not any(overlap(x, y) for y in [*outputs[:i], *kept])


@pytest.mark.mutable
def test_what_the_caller_does_with_arrays_afterwards_makes_no_difference(row: Row, library: Library) -> None:
    """Optimizers overwrite gradients and updates in place; the next steps must not notice."""
    careless = simulator_of(row, W, library, decay=True)
    for step in range(3):
        gradients = library.arrays(normal_gradients(W, step))
        means = careless.step(gradients)
        assert [bits_of(own) for own in means] == recorded(row, library, W).means[step]
        for own in (*gradients, *means):
            for x in own.values():
                x[...] = float("nan")
