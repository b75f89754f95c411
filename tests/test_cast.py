"""Casts round to nearest, ties to even; their averages overflow only where the mean itself would."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import TORCH, Library, assert_close, normal_gradients, wide
from hypothesis import given
from hypothesis import strategies as st
from oracles.averaging import average
from oracles.rounding import BFLOAT16, FLOAT16, FORMATS, rounded

from hvd_compress import Cast, ErrorFeedback, HorovodCompressor, Simulator, Spec, TwoWay
from hvd_compress.ops import ops_of

finite32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


def through(codec: Cast, x: np.ndarray, library: Library) -> np.ndarray:
    array = library.array(x)
    ops = ops_of(array)
    return wide(codec.decode(codec.encode(array, ops), Spec(x.shape), ops))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["numpy", "torch"])
@given(values=st.lists(finite32, min_size=1, max_size=20))
def test_rounds_to_nearest_even(dtype: str, name: str, values: list[float]) -> None:
    x = np.array(values, np.float32)
    assert np.array_equal(through(Cast(dtype), x, Library(name)), rounded(x, FORMATS[dtype]))


def test_ties_denormals_and_the_last_numbers_of_the_range(library: Library) -> None:
    exact = np.float32([1.0, 1.0 + 2.0**-8, 1.0 + 3 * 2.0**-8, -1.0 - 2.0**-8, 3.3e38, 0.0, -0.0])
    if library.denormals:
        exact = np.append(exact, np.float32([1e-40, 2.0**-133]))
    assert np.array_equal(through(Cast("bfloat16"), exact, library), rounded(exact, BFLOAT16))
    exact = np.float32([1.0 + 2.0**-11, 1.0 + 3 * 2.0**-11, 65504, 65519.9, 65520, -65520, 2.0**-24, 2.0**-25, 6e-8])
    assert np.array_equal(through(Cast("float16"), exact, library), rounded(exact, FLOAT16))


@given(values=st.lists(finite32, min_size=1, max_size=20))
def test_numpy_agrees_with_torchs_own_bfloat16(values: list[float]) -> None:
    x = np.array([*values, np.inf, -np.inf, np.nan], np.float32)
    expected = torch.tensor(x).to(torch.bfloat16).view(torch.int16).numpy()
    ours = ops_of(x).to_bfloat16_bits(x)
    assert np.array_equal(ours[:-1], expected[:-1])
    back = ops_of(x).from_bfloat16_bits(ours, "float32")
    assert np.isnan(back[-1])
    assert np.array_equal(back[:-1], torch.tensor(x).to(torch.bfloat16).float().numpy()[:-1])


@pytest.mark.parametrize("compressor", ["fp16", "none", ErrorFeedback(Cast()), TwoWay(Cast())], ids=repr)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_60000_averages_to_60000(library: Library, world_size: int, compressor: object, dtype: str) -> None:
    """A sum of two would be infinite in float16; the mean is not."""
    gradients = [{"w": library.array(np.full(5, 60000.0), dtype)} for _ in range(world_size)]
    simulator = Simulator(compressor, world_size, allow_larger=True)
    for _ in range(2):
        assert_close(simulator.step(gradients)[0]["w"], np.full(5, 60000.0), 2.0**-10)


@pytest.mark.parametrize("world", [2, 3, 4])
def test_bfloat16_keeps_the_range_of_float32(library: Library, world: int) -> None:
    x = np.array([8e37, 1e-37, 1e-39, -2e30])
    mean = wide(Simulator("bf16", world, allow_larger=True).step([{"w": library.array(x)}] * world)[0]["w"])
    assert np.isfinite(mean).all()
    assert np.allclose(mean[[0, 1, 3]], x[[0, 1, 3]], rtol=2.0**-7)
    assert mean[2] > 0 or not library.denormals


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_mean_of_casts_is_near_the_cast_of_the_mean(library: Library, world_size: int, dtype: str) -> None:
    parts = [np.random.default_rng(rank).standard_normal(33) for rank in range(world_size)]
    mean = Simulator(Cast(dtype), world_size, allow_larger=True).step([{"w": library.array(part)} for part in parts])[
        0
    ]["w"]
    assert_close(mean, average(parts), 2 * FORMATS[dtype].unit_roundoff, scale=max(abs(p).max() for p in parts))


@pytest.mark.parametrize(("dtype", "gradient"), [("float16", "float16"), ("bfloat16", "bfloat16")])
def test_lossless_for_its_own_element_type_only(dtype: str, gradient: str) -> None:
    for other in ("float16", "bfloat16", "float32", "float64"):
        assert Cast(dtype).lossless(Spec((3,), other)) is (other == gradient)


def test_bfloat16_bits_are_never_summed() -> None:
    """They travel as int16 by TwoWay; only float16 is a sum of payloads."""
    spec = Spec((8,))
    assert Cast("float16").summable(spec)
    assert not Cast("bfloat16").summable(spec)
    assert Cast("bfloat16").payload(spec) == ((8, "int16"),)
    assert Cast("float16").payload(spec) == ((8, "float16"),)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_feedback_recovers_what_rounding_drops(dtype: str) -> None:
    """1 + 2^-13 is not a 16-bit number: without memory the fraction is lost for ever, with it, it arrives."""
    x = np.full(4, 1.0 + 2.0**-13, np.float32)
    fed, plain = (
        Simulator(ErrorFeedback(Cast(dtype)), 1, allow_larger=True),
        Simulator(Cast(dtype), 1, allow_larger=True),
    )
    total = sum(fed.step([{"w": x}])[0]["w"].astype(np.float64) for _ in range(64))
    assert abs(total[0] - 64 * x[0]) <= 2.0**-8
    assert sum(plain.step([{"w": x}])[0]["w"].astype(np.float64) for _ in range(64))[0] == 64.0


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize(
    ("compressor", "dtype", "divided"),
    [
        (Cast("float16"), "float16", True),
        (HorovodCompressor("row:HalfPrecision"), "float16", True),
        (TwoWay(Cast("float16")), "float16", False),
        (Cast("bfloat16"), "bfloat16", False),
    ],
    ids=repr,
)
def test_a_worker_keeps_what_its_own_rounding_dropped(
    compressor: object, dtype: str, divided: bool, world: int
) -> None:
    """W fl(g / W) of its gradient is in the mean where the sum is divided first, fl(g) where it is not."""
    gradients = [own["w"].astype(np.float32) for own in normal_gradients(world, 0, {"w": (9,)})]
    simulator = Simulator(ErrorFeedback(compressor), world, allow_larger=True)
    simulator.step([{"w": TORCH.array(g)} for g in gradients])
    divisor = world if divided else 1
    for g, own in zip(gradients, simulator.state_dicts(), strict=True):
        dropped = g - divisor * rounded(g / divisor, FORMATS[dtype])
        assert np.any(dropped)
        assert_close(own["units"]["w"]["leaves"]["error"], dropped, 1e-6)
