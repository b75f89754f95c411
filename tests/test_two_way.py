"""TwoWay: every rank serves one shard; what is cut is put together again, and bits may take any codec."""

from __future__ import annotations

import numpy as np
import pytest
from cases import TORCH, Library, assert_close, normal_gradients, wide
from hypothesis import given
from hypothesis import strategies as st
from oracles.averaging import average
from oracles.rounding import FORMATS, rounded

from hvd_compress import Cast, Identity, Simulator, Spec, TwoWay


@given(size=st.integers(0, 23), world=st.integers(1, 7), seed=st.integers(0, 99))
@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_any_length_is_cut_and_joined(name: str, size: int, world: int, seed: int) -> None:
    """Also where there are fewer elements than ranks, or one shard is short."""
    parts = [own["w"] for own in normal_gradients(world, 0, {"w": (size,)}, seed)]
    mean = Simulator(TwoWay(Identity()), world, allow_larger=True).step(
        [{"w": Library(name).array(p, "float64")} for p in parts]
    )[0]["w"]
    assert_close(mean, average(parts), 1e-12, scale=4.0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_encoded_averaged_and_encoded_again(library: Library, world_size: int, dtype: str) -> None:
    """fl(mean of fl(g_i)): one rounding on the way to the server, one on the way back."""
    parts = [own["w"].astype(np.float32) for own in normal_gradients(world_size, 0, {"w": (13,)})]
    mean = Simulator(TwoWay(Cast(dtype)), world_size).step([{"w": library.array(part)} for part in parts])[0]["w"]
    form = FORMATS[dtype]
    served = average([rounded(part, form) for part in parts])
    assert_close(mean, served, form.unit_roundoff * 1.01, scale=float(np.abs(served).max()))
    assert np.array_equal(rounded(wide(mean), form), wide(mean))


def test_half_precision_is_summed_in_float32() -> None:
    """1 + 2^-8 is no bfloat16, but the mean of 1, 1, 1 and 1 + 2^-5 is, and needs more bits on the way."""
    parts = [np.ones(4)] * 3 + [np.full(4, 1 + 2.0**-5)]
    mean = Simulator(TwoWay(Identity()), 4).step([{"w": TORCH.array(part, "bfloat16")} for part in parts])[0]["w"]
    assert_close(mean, np.full(4, 1 + 2.0**-7), 0.0)


def test_what_it_sends() -> None:
    """2 (W-1)/W of the payload; the last shard padded."""
    spec = Spec((10,))
    assert TwoWay(Identity()).wire_bytes(spec, 1) == 0
    assert TwoWay(Identity()).wire_bytes(spec, 2) == 20 + 20
    assert TwoWay(Identity()).wire_bytes(spec, 4) == 3 * 12 + 3 * 12
    assert TwoWay(Cast()).wire_bytes(spec, 4) == 3 * 6 + 3 * 6
