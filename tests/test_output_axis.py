"""Where a library keeps the output features of a kernel decides as what matrix its gradient is seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import TENSORFLOW, TORCH, assert_close, normal_gradients, wide
from oracles.low_rank import best_rank

from hvd_compress import AlternatingLowRank, BestLowRank, LowRank, Operator, PowerSGD, Simulator, Spectral

KERNEL = (3, 2, 4, 5)  # height x width x inputs x outputs, in TensorFlow
MATRIX = (24, 5)
W = 2


def torchs(kernel: np.ndarray) -> np.ndarray:
    """Return the kernel as torch keeps it: outputs x inputs x height x width."""
    return kernel.transpose(3, 2, 0, 1)


def kernels(step: int) -> list[np.ndarray]:
    return [own["w"] for own in normal_gradients(W, step, {"w": KERNEL})]


def mean(simulator: Simulator, library: Any, gradients: list[np.ndarray]) -> np.ndarray:
    return wide(simulator.step([{"w": library.array(g, "float64")} for g in gradients])[0]["w"])


@pytest.mark.parametrize(
    "compressor",
    [
        PowerSGD(rank=2),
        PowerSGD(rank=2, alternate=True),
        LowRank(rank=1, warm_start=False),
        AlternatingLowRank(rank=3),
        Spectral(rank=2),
    ],
    ids=repr,
)
def test_a_kernel_of_tensorflow_is_the_matrix_of_its_outputs_columns(compressor: Operator) -> None:
    """(h w i) x o: as torch sees a matrix of that shape, step by step."""
    kernel, matrix = Simulator(compressor, W), Simulator(compressor, W)
    for step in range(4):
        expected = mean(matrix, TORCH, [g.reshape(MATRIX) for g in kernels(step)])
        assert_close(mean(kernel, TENSORFLOW, kernels(step)).reshape(MATRIX), expected, 1e-9)


def test_the_plan_says_so() -> None:
    simulator = Simulator(PowerSGD(rank=2), 1)
    mean(simulator, TENSORFLOW, kernels(0)[:1])
    (unit,) = simulator.plan.units
    assert (unit.spec.shape, unit.spec.output_axis, unit.spec.matrix_shape) == (KERNEL, -1, MATRIX)
    assert simulator.plan.wire_bytes(2) == (24 + 5) * 2 * 8


def test_the_best_approximation_is_torchs_of_the_same_kernel() -> None:
    """Output features against all the rest, in either order: one matrix, transposed."""
    for step in range(2):
        average = np.mean(kernels(step), axis=0).reshape(MATRIX)
        ours = mean(Simulator(BestLowRank(rank=2), W), TENSORFLOW, kernels(step))
        theirs = mean(Simulator(BestLowRank(rank=2), W), TORCH, [torchs(g) for g in kernels(step)])
        assert_close(ours.reshape(MATRIX), best_rank(average, 2), 1e-10)
        assert_close(torchs(ours), theirs, 1e-10)


def of_rank_two(noise: float) -> list[np.ndarray]:
    """Return gradients whose third singular value is about `noise` of the second."""
    low = np.random.default_rng(0).standard_normal((24, 2)) @ np.random.default_rng(1).standard_normal((2, 5))
    return [low.reshape(KERNEL) + noise * own for own in kernels(0)]


def test_powersgd_comes_to_the_same_in_torch_and_tensorflow() -> None:
    """Power iteration starts from outputs in one and from inputs in the other, and ends at the same approximation."""
    ours, theirs = Simulator(LowRank(rank=2), W), Simulator(LowRank(rank=2), W)
    gradients = of_rank_two(0.05)
    for step in range(12):
        found, expected = mean(ours, TENSORFLOW, gradients), mean(theirs, TORCH, [torchs(g) for g in gradients])
        if step == 0:
            assert np.abs(torchs(found) - expected).max() > 1e-4
    assert_close(torchs(found), expected, 1e-8)


@pytest.mark.parametrize("alternate", [False, True])
def test_what_has_the_rank_arrives_whole_in_both(alternate: bool) -> None:
    """At once; with alternating factors, which begin with a random one, from the second step on."""
    compressor = PowerSGD(rank=2, alternate=alternate, error_feedback=False)
    ours, theirs = Simulator(compressor, W), Simulator(compressor, W)
    gradients = of_rank_two(0.0)
    for step in range(4):
        found, expected = mean(ours, TENSORFLOW, gradients), mean(theirs, TORCH, [torchs(g) for g in gradients])
        if step or not alternate:
            assert_close(found, gradients[0], 1e-9)
            assert_close(expected, torchs(gradients[0]), 1e-9)
