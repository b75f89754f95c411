"""Top-k by a sampled threshold: always k different elements, about the largest, and exact where tensors are small."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import NUMPY, TORCH, Library, wide
from hypothesis import given
from hypothesis import strategies as st
from oracles.sparsifiers import top_k

from hvd_compress import DGC, Simulator, TopK
from hvd_compress.ops import ops_of

LIBRARIES = pytest.mark.parametrize("library", [NUMPY, TORCH], ids=lambda library: library.name)


def picked(x: Any, ratio: float, step: int = 0) -> tuple[np.ndarray, np.ndarray]:
    positions, values = TopK(ratio, "sampled").encode(x, ops_of(x), ("w", step, 0))
    return np.asarray(positions).astype(np.int64), wide(values)


@LIBRARIES
@given(size=st.integers(1, 20_000), ratio=st.sampled_from([0.001, 0.01, 0.1, 0.5, 1.0]), seed=st.integers(0, 99))
def test_always_so_many_different_elements(library: Library, size: int, ratio: float, seed: int) -> None:
    x = np.random.default_rng(seed).standard_normal(size) ** 3
    positions, values = picked(library.array(x), ratio, seed)
    assert len(positions) == max(1, int(np.ceil(round(ratio * size, 6))))
    assert len(set(positions.tolist())) == len(positions)
    assert positions.tolist() == sorted(positions.tolist())
    np.testing.assert_array_equal(values, x.astype(np.float32)[positions])


@LIBRARIES
def test_about_the_largest(library: Library) -> None:
    """Over many draws of the sample most of the true top k are found, and what is sent weighs nearly as much."""
    x = np.random.default_rng(0).standard_normal(200_000) ** 3
    best = top_k(x, 2000)
    found, weight = [], []
    for step in range(20):
        positions, values = picked(library.array(x), 0.01, step)
        found.append(len(best & set(positions.tolist())) / 2000)
        weight.append(np.sum(values**2) / np.sum(x[list(best)] ** 2))
    assert np.mean(found) > 0.9
    assert min(weight) > 0.9


@LIBRARIES
def test_small_tensors_are_exact(library: Library) -> None:
    x = np.random.default_rng(1).standard_normal(2000)
    assert set(picked(library.array(x), 0.05)[0].tolist()) == top_k(x, 100)


@LIBRARIES
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_what_is_not_finite_is_seen_wherever_it_is(library: Library, poison: float) -> None:
    for where in (0, 4321, 19_999):
        x = np.random.default_rng(2).standard_normal(20_000)
        x[where] = poison
        with np.errstate(invalid="ignore"):
            assert not np.isfinite(picked(library.array(x), 0.01)[1]).all()


@LIBRARIES
def test_few_elements_above_the_threshold_are_filled_up(library: Library) -> None:
    """All the large ones are sent, with some of the many equal ones besides."""
    x = np.full(50_000, 1e-3)
    x[[7, 49_000]] = (3.0, -4.0)
    positions, _ = picked(library.array(x), 0.001)
    assert len(set(positions.tolist())) == 50
    zeros, values = picked(library.array(np.zeros(50_000)), 0.001)
    assert len(set(zeros.tolist())) == 50
    assert not values.any()


def test_what_is_passed_over_is_sent_later() -> None:
    """Nothing is lost: v and what was sent add up to the gradients, at a size where the threshold is sampled."""
    simulator = Simulator(DGC(0.01, momentum=0.0, selection="sampled"), 2)
    total, sent = np.zeros((200, 100)), np.zeros((200, 100))
    for step in range(4):
        gradients = [{"w": np.random.default_rng([rank, step]).standard_normal((200, 100))} for rank in range(2)]
        sent += simulator.step(gradients)[0]["w"]
        total += np.mean([own["w"] for own in gradients], axis=0)
    owed = np.mean([state["units"]["w"]["leaves"]["error"] for state in simulator.state_dicts()], axis=0)
    np.testing.assert_allclose(sent + owed, total, atol=1e-12)
    assert 0 < np.count_nonzero(sent) < 2 * 4 * 201
