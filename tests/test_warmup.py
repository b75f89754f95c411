"""Warmup: averages first, then whatever comes after, as if it began then."""

from __future__ import annotations

import numpy as np
import pytest
from cases import MODEL, NUMPY, assert_close, bits, normal_gradients
from oracles.averaging import average_models

from hvd_compress import Cast, ErrorFeedback, LowRank, Operator, PowerSGD, Simulator, Spec, Warmup

W = 2


@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("then", [LowRank(2), PowerSGD(2), Cast(), ErrorFeedback(Cast())], ids=repr)
def test_averages_then_begins(steps: int, then: Operator) -> None:
    warm, fresh = Simulator(Warmup(steps, then), W), Simulator(then, W)
    for step in range(steps + 3):
        gradients = NUMPY.arrays(normal_gradients(W, step))
        means = warm.step(gradients)[0]
        if step < steps:
            for name, x in average_models(normal_gradients(W, step)).items():
                assert_close(means[name], x, 1e-6, scale=4.0)
        else:
            expected = fresh.step(gradients)[0]
            assert {name: bits(x) for name, x in means.items()} == {name: bits(x) for name, x in expected.items()}


def test_the_bytes_change_when_it_ends() -> None:
    spec, inner = Spec(MODEL["conv"]), LowRank(2)
    operator = Warmup(3, inner)
    dense = 2 * spec.nbytes // 2
    assert [operator.wire_bytes(spec, 2, step) for step in range(5)] == [dense] * 3 + [inner.wire_bytes(spec, 2)] * 2


def test_a_residual_starts_from_zero_when_it_ends() -> None:
    simulator = Simulator(Warmup(2, ErrorFeedback(LowRank(1, min_saving=0.0))), W)
    for step in range(3):
        simulator.step(NUMPY.arrays(normal_gradients(W, step)))
        error = simulator.state_dicts()[0]["units"]["conv"]["leaves"]["error"]
        assert np.any(error) == (step >= 2)
