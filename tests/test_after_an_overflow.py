"""Law: after a step that overflowed, at the first step or later, every layer is transmitted as well as ever."""

from __future__ import annotations

import numpy as np
from cases import MODEL, Library, Row, bits, normal_gradients, simulator_of, wide
from oracles.averaging import average_models

from hvd_compress import PowerSGD, Simulator

W = 2
SENT = [name for name, shape in MODEL.items() if 0 not in shape]


def test_a_layer_is_transmitted_again(row: Row, library: Library) -> None:
    simulator = simulator_of(row, W, library)
    for step in range(5):
        gradients = normal_gradients(W, step)
        average = average_models(gradients)
        overflowed = step in (0, 3)
        if overflowed:
            for name in SENT:
                gradients[1][name].reshape(-1)[0] = np.inf
        with np.errstate(all="ignore"):
            means = simulator.step(library.arrays(gradients))[0]
        for name in SENT:
            if overflowed:
                assert not np.isfinite(wide(means[name])).all(), f"{name} at step {step}"
            else:
                assert np.sum(wide(means[name]) * average[name]) > 1e-3 * np.sum(average[name] ** 2), name


def test_the_other_layers_do_not_notice() -> None:
    spoilt, clean = Simulator(PowerSGD(rank=2), W), Simulator(PowerSGD(rank=2), W)
    for step in range(4):
        gradients = normal_gradients(W, step)
        expected = clean.step(gradients)[0]
        if step == 1:
            gradients[0]["matrix"][0, 0] = np.inf
        with np.errstate(all="ignore"):
            means = spoilt.step(gradients)[0]
        assert all(bits(means[name]) == bits(expected[name]) for name in MODEL if name != "matrix")
