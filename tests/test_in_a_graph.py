"""Law: one graph, built once, does at every step what the eager simulator does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from cases import EPSILON, TENSORFLOW, Row, bits, normal_gradients, parameters_of, simulator_of, wide
from graph_simulator import GraphSimulator

from hvd_compress.contract import walk
from hvd_compress.exchange import Phases, Plan


def steps_of(plan: Plan) -> list[int]:
    """Return step numbers in which every phase begins, some go on, and none is left out; the first ones in a row."""
    phases = Phases.of(plan)
    return list(range(min(max(phases.first_steps) + 2, 6)))


def graph_simulator_of(row: Row, world_size: int) -> GraphSimulator:
    parameters = parameters_of(TENSORFLOW, True) if row.parameters else None
    return GraphSimulator(
        row.compressor, world_size, learning_rate=row.rate, parameters=parameters, allow_larger=True
    )


def test_try(row: Row) -> None:
    graph, eager = graph_simulator_of(row, 2), simulator_of(row, 2, TENSORFLOW, decay=True)
    for step in range(4):
        if row.rate:
            graph.learning_rate = eager.learning_rate = [0.1, 0.0, 0.3, 0.2][step]
        gradients = TENSORFLOW.arrays(normal_gradients(2, step))
        found, expected = graph.step(gradients), eager.step(gradients)
        for own, right in zip(found, expected, strict=True):
            for name in right:
                assert bits(own[name]) == bits(right[name]), (step, name, np.abs(wide(own[name])-wide(right[name])).max())
        assert graph.sent_bytes == eager.sent_bytes
    assert graph.traces == 1
