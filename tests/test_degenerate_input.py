"""Law: degenerate input is normal input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import (
    EPSILON,
    MODEL,
    TORCH,
    Library,
    Row,
    assert_close,
    bits,
    dtype_of,
    normal_gradients,
    simulator_of,
    wide,
)
from oracles.averaging import average_models

from hvd_compress import BestLowRank, LowRank, Operator, PowerSGD, Simulator

W = 2
ZEROS = [{name: np.zeros(shape) for name, shape in MODEL.items()} for _ in range(W)]


def test_zeros_stay_zeros(row: Row, library: Library) -> None:
    for dtype in row.dtypes(library):
        simulator = simulator_of(row, W, library)
        for _ in range(3):
            for x in simulator.step(library.arrays(ZEROS, dtype))[0].values():
                assert not np.any(wide(x))


def test_a_zero_step_does_not_silence_a_layer(row: Row, library: Library) -> None:
    """After gradients of zero, at the first step or later, every layer is transmitted again, and as well as ever."""
    simulator = simulator_of(row, W, library)
    for step, gradients in enumerate([ZEROS, normal_gradients(W, 1), ZEROS, ZEROS, *[normal_gradients(W, 4)] * 2]):
        means = simulator.step(library.arrays(gradients))[0]
        average = average_models(gradients)
        for name, x in means.items():
            if not MODEL[name] or 0 in MODEL[name] or gradients is ZEROS:
                continue
            # A projection onto random directions keeps a share of the gradient, and points the same way.
            kept = float(np.sum(wide(x) * average[name])) / float(np.sum(average[name] ** 2))
            assert kept > 1e-3, f"{name} was silent at step {step}"


def test_extreme_elements(row: Row, library: Library) -> None:
    """One huge and one denormal element, again and again: everything stays finite, and close where it can be."""
    simulator = simulator_of(row, W, library)
    gradients = normal_gradients(W)
    for own in gradients:
        for x in own.values():
            if x.size:
                x.reshape(-1)[0] = row.largest
                x.reshape(-1)[-1] = 1e-41 if x.size > 1 else row.largest
    average = average_models(gradients)
    for _ in range(3):
        means = simulator.step(library.arrays(gradients))[0]
        for name, x in means.items():
            assert np.isfinite(wide(x)).all(), name
            assert np.abs(wide(x)).max(initial=0.0) <= 8 * np.abs(average[name]).max(initial=0.0)


@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_the_scale_of_a_gradient_does_not_matter(row: Row, library: Library, scale: float) -> None:
    """C(c x) = c C(x) over the range of float32, for what does not travel in fewer exponent bits."""
    if row.wire == "float16":
        return
    plain, scaled = simulator_of(row, W, library), simulator_of(row, W, library)
    for step in range(3):
        gradients = normal_gradients(W, step)
        expected = plain.step(library.arrays(gradients))[0]
        big = [{name: x * scale for name, x in own.items()} for own in gradients]
        for name, x in scaled.step(library.arrays(big))[0].items():
            assert_close(wide(x) / scale, expected[name], 50 * row.tolerance(), scale=4.0)


def test_a_worker_without_gradient_counts_as_zeros(row: Row, library: Library) -> None:
    """One worker's gradients are all zero: the others' still count, divided by the number of all."""
    half, own = simulator_of(row, 2, library), simulator_of(row, 1, library)
    for step in range(3):
        some = normal_gradients(1, step)
        shared = half.step(library.arrays([some[0], ZEROS[0]]))[0]
        alone = own.step(library.arrays([{name: x / 2 for name, x in some[0].items()}]))[0]
        for name in MODEL:
            assert_close(shared[name], alone[name], 20 * row.tolerance(), scale=4.0)


def test_rank_deficient_gradients(row: Row, library: Library) -> None:
    """Every matrix is an outer product on each worker; what one or two directions hold is sent whole or kept."""
    simulator = simulator_of(row, W, library)
    for step in range(3):
        gradients = normal_gradients(W, step)
        for own in gradients:
            for name, x in own.items():
                if x.ndim >= 2 and x.size:
                    flat = x.reshape(x.shape[0], -1)
                    own[name] = np.outer(flat[:, 0], flat[0]).reshape(x.shape)
        for name, x in simulator.step(library.arrays(gradients))[0].items():
            assert np.isfinite(wide(x)).all(), name


def test_layout_in_memory_does_not_matter(row: Row, library: Library) -> None:
    """Strided and transposed gradients, and channels-last ones, give what contiguous ones give."""
    plain, strided = simulator_of(row, W, library), simulator_of(row, W, library)
    for step in range(2):
        gradients = library.arrays(normal_gradients(W, step))
        expected = plain.step(gradients)[0]
        odd = [{name: _relaid(x) for name, x in own.items()} for own in gradients]
        assert any(not _is_contiguous(x) for x in odd[0].values())
        for name, x in strided.step(odd)[0].items():
            assert tuple(x.shape) == MODEL[name]
            assert bits(x) == bits(expected[name])


def _relaid(x: object) -> object:
    """Return an equal array whose elements lie elsewhere in memory."""
    if isinstance(x, torch.Tensor):
        if x.ndim == 4:
            return x.to(memory_format=torch.channels_last)
        return x.t().clone().t() if x.ndim == 2 else torch.stack([x, x], dim=-1)[..., 0]
    return np.asfortranarray(x) if x.ndim >= 2 else np.stack([x, x], axis=-1)[..., 0]


def _is_contiguous(x: object) -> bool:
    return x.is_contiguous() if isinstance(x, torch.Tensor) else x.flags.c_contiguous


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("compressor", [LowRank(), PowerSGD(), BestLowRank(rank=1)], ids=repr)
def test_factors_of_half_precision_gradients_do_not_overflow(compressor: Operator, dtype: str) -> None:
    """They are at least float32: here each element of P is far beyond the range of float16."""
    gradients = [{"w": TORCH.array(np.full((8, 4096), 1e4), dtype)} for _ in range(W)]
    mean = Simulator(compressor, W, allow_larger=True).step(gradients)[0]["w"]
    assert dtype_of(mean) == dtype
    assert_close(mean, np.full((8, 4096), 1e4), 2 * EPSILON[dtype])


def test_a_model_with_nothing_to_send(row: Row, library: Library, world_size: int) -> None:
    """A model of empty gradients only needs no collective, and gets empty means."""
    simulator = simulator_of(row, world_size, library)
    means = simulator.step([{"empty": library.array(np.zeros((0, 3)))} for _ in range(world_size)])
    assert [tuple(own["empty"].shape) for own in means] == [(0, 3)] * world_size
    assert simulator.sent_bytes == 0
    assert simulator.workers[0].meter.collectives == 0
