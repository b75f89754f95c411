"""Law: after a step that overflowed or was zero, at the first step or later, layers are sent as well as ever."""

from __future__ import annotations

import numpy as np
import pytest
from cases import MODEL, Library, Row, memory_of, normal_gradients, simulator_of, wide
from ideal import Ideal

W = 2
SENT = [name for name, shape in MODEL.items() if 0 not in shape]
OVERFLOW, ZERO = (0, 3), (1, 5, 6)
LAST = 10


def gradients_of(step: int) -> list[dict[str, np.ndarray]]:
    """Return gradients of workers that by and large agree; the same ones at the last steps."""
    *gradients, common = normal_gradients(W + 1, min(step, ZERO[-1] + 1))
    for rank, own in enumerate(gradients):
        for name in SENT:
            own[name] = np.asarray(common[name] * (1 + 0.1 * np.tanh(own[name])))
            if step in OVERFLOW and rank == 1:
                own[name].reshape(-1)[0] = np.inf
            if step in ZERO:
                own[name] = np.zeros_like(own[name])
    return gradients


@pytest.mark.rows("steady")
def test_a_layer_is_transmitted_again(row: Row, library: Library) -> None:
    """At every other step every layer's update points along the gradient; with what is owed, over the last steps.

    Momentum goes on along older gradients, and a joined row weighs layers together: for these the next law speaks.
    """
    simulator, ideal = simulator_of(row, W, library), Ideal(row)
    owing = memory_of(row) is not None
    applied = {name: np.zeros(MODEL[name]) for name in SENT}
    for step in range(LAST):
        gradients = gradients_of(step)
        with np.errstate(all="ignore"):
            means = simulator.step(library.arrays(gradients))[0]
        finite = [{name: np.where(np.isfinite(x), x, 0.0) for name, x in own.items()} for own in gradients]
        expected = ideal.step(finite)
        for name in SENT:
            if step in OVERFLOW:
                assert step != OVERFLOW[0] or row.joined or not np.isfinite(wide(means[name])).all(), name
                continue
            applied[name] = wide(means[name]) + (applied[name] if owing and step > ZERO[-1] else 0.0)
            judged = step not in ZERO and row.separable and not row.momentum
            if judged and (not owing or step == LAST - 1):
                # A projection onto random directions keeps a share of the gradient, and points the same way.
                kept = float(np.sum(applied[name] * expected[name]))
                assert kept > (0.0 if row.random else 1e-3) * float(np.sum(expected[name] ** 2)), (
                    f"{name} was silent at step {step}"
                )


@pytest.mark.rows("averages")
def test_every_layer_gets_its_turn(row: Row) -> None:
    """Of constant gradients of like size every layer is sent within few steps, where what is not sent is remembered.

    Without a memory every unit is: the largest, or other ones at every step, are of some layer.
    """
    library = Library(row.libraries[0])
    simulator = simulator_of(row, W, library)
    for step in range(7):
        with np.errstate(all="ignore"):
            simulator.step(library.arrays(gradients_of(step)))
    own = {name: np.sign(x) * (1 + 0.1 * np.abs(np.tanh(x))) for name, x in normal_gradients(1, 99)[0].items()}
    total = {name: np.zeros_like(x) for name, x in own.items()}
    for _ in range(20):
        means = simulator.step(library.arrays([own, own]))[0]
        total = {name: x + wide(means[name]) for name, x in total.items()}
    for unit in simulator.plan.units:
        names = [name for name, _ in unit.parameters if name in SENT]
        kept = {name: float(np.sum(total[name] * own[name]) / np.sum(own[name] ** 2)) for name in names}
        if names and memory_of(row):
            assert min(kept.values()) > 0.05, kept
        assert not names or sum(kept.values()) > 0.05, kept
