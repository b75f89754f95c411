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
from ideal import Ideal
from oracles.averaging import average_models

from hvd_compress import BestLowRank, LowRank, Operator, PowerSGD, Simulator

W = 2
ZEROS = [{name: np.zeros(shape) for name, shape in MODEL.items()} for _ in range(W)]


@pytest.mark.rows("averages")
def test_zeros_stay_zeros(row: Row, library: Library) -> None:
    for dtype in row.dtypes(library):
        simulator = simulator_of(row, W, library)
        for _ in range(3):
            for x in simulator.step(library.arrays(ZEROS, dtype))[0].values():
                assert not np.any(wide(x))


def test_extreme_elements(row: Row, library: Library) -> None:
    """One huge and one denormal element, again and again: everything stays finite, and close where it can be."""
    simulator, ideal = simulator_of(row, W, library), Ideal(row)
    gradients = normal_gradients(W)
    for own in gradients:
        for x in own.values():
            if x.size:
                x.reshape(-1)[0] = row.largest
                x.reshape(-1)[-1] = 1e-41 if x.size > 1 else row.largest
    for step in range(3):
        means = simulator.step(library.arrays(gradients))[0]
        expected = ideal.step(gradients)
        for unit in simulator.plan.units:
            names = [name for name, _ in unit.parameters]
            largest = max(np.abs(expected[name]).max(initial=0.0) for name in names)
            for name in names:
                assert np.isfinite(wide(means[name])).all(), name
                # Draws that are rarely made are large; what was not sent of two steps may come with the third.
                growth = max(8, unit.spec.size) if row.random else 8
                assert np.abs(wide(means[name])).max(initial=0.0) <= growth * largest, f"{name} at step {step}"


def test_the_scale_of_a_gradient_does_not_matter(row: Row, library: Library) -> None:
    """C(c x) = c C(x) over the range of float32, for what does not travel in fewer exponent bits; a vote has no scale.

    The scales are powers of two, so that no rounding turns a decision.
    """
    if row.wire == "float16":
        return
    scales = (2.0**-100, 2.0**83)
    plain, *others = (simulator_of(row, W, library) for _ in range(3))
    for step in range(3):
        gradients = library.arrays(normal_gradients(W, step))
        expected = plain.step(gradients)[0]
        largest = max(4.0, *(float(np.abs(wide(x)).max(initial=0.0)) for x in expected.values()))
        for scaled, scale in zip(others, scales, strict=True):
            big = [{name: wide(x) * scale for name, x in own.items()} for own in gradients]
            for name, x in scaled.step(library.arrays(big))[0].items():
                found = wide(x) / (scale if row.averages else 1.0)
                assert_close(found, expected[name], 50 * row.tolerance(), scale=largest)


@pytest.mark.rows("additive")
def test_a_worker_without_gradient_counts_as_zeros(row: Row, library: Library) -> None:
    """One worker's gradients are all zero: the others' still count, divided by the number of all."""
    half, own = simulator_of(row, 2, library), simulator_of(row, 1, library)
    for step in range(3):
        some = normal_gradients(1, step)
        shared = half.step(library.arrays([some[0], ZEROS[0]]))[0]
        alone = own.step(library.arrays([{name: x / 2 for name, x in some[0].items()}]))[0]
        for name in MODEL:
            assert_close(shared[name], alone[name], 20 * row.tolerance(), scale=4.0)


def test_a_worker_without_gradient_does_not_silence_the_others(row: Row) -> None:
    """Whoever it is: over some steps, the update points along the gradients that the others have."""
    library = Library(row.libraries[0])
    for idle in (0, 2):
        simulator, along, whole = simulator_of(row, 3, library), 0.0, 0.0
        for step in range(4):
            gradients = normal_gradients(3, 0)
            gradients[idle] = ZEROS[0]
            means = simulator.step(library.arrays(gradients))[0]
            expected = average_models(gradients)
            along += sum(float(np.sum(wide(means[name]) * x)) for name, x in expected.items())
            whole += sum(float(np.sum(x**2)) for x in expected.values())
            assert all(np.isfinite(wide(x)).all() for x in means.values()), step
        assert along > 0.02 * whole


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


@pytest.mark.mutable
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


def test_a_model_with_nothing_to_send(row: Row) -> None:
    """A model of empty gradients only needs no collective, and gets empty means."""
    library = Library(row.libraries[0])
    for world_size in (1, 3):
        simulator = simulator_of(row, world_size, library)
        means = simulator.step([{"empty": library.array(np.zeros((0, 3)))} for _ in range(world_size)])
        assert [tuple(own["empty"].shape) for own in means] == [(0, 3)] * world_size
        assert simulator.sent_bytes == 0
        assert simulator.workers[0].meter.collectives == 0
