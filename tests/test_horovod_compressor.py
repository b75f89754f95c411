"""Compressors written for Horovod's own API work on our drivers, averaged without overflow."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from cases import TORCH, HalfPrecision, assert_close, bits, normal_gradients

from hvd_compress import AllReduce, Cast, ConfigurationError, HorovodCompressor, Simulator, resolve


class DoubledInBetween:
    """Sends twice the gradient: its two halves both have to be used, once each, around the allreduce."""

    @staticmethod
    def compress(tensor: torch.Tensor) -> tuple[torch.Tensor, str]:
        return tensor * 2, "halve"

    @staticmethod
    def decompress(tensor: torch.Tensor, ctx: str) -> torch.Tensor:
        assert ctx == "halve"
        return tensor / 2


class Scaled:
    """A compressor with a setting, used as an instance."""

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.calls = 0

    def compress(self, tensor: torch.Tensor) -> tuple[torch.Tensor, None]:
        self.calls += 1
        return tensor * self.factor, None

    def decompress(self, tensor: torch.Tensor, ctx: None) -> torch.Tensor:
        return tensor / self.factor


def test_an_instance_keeps_its_settings(world_size: int) -> None:
    gradients = normal_gradients(world_size)
    plain = Simulator("none", world_size).step(TORCH.arrays(gradients))[0]
    means = Simulator(Scaled(4.0), world_size).step(TORCH.arrays(gradients))[0]
    for name, x in plain.items():
        assert_close(means[name], x, 1e-6, scale=4.0)


def test_ranks_tell_instances_apart_by_settings_only() -> None:
    assert repr(resolve(Scaled(4.0))) == repr(resolve(Scaled(4.0)))
    assert repr(resolve(Scaled(4.0))) != repr(resolve(Scaled(2.0)))


def test_the_payload_is_found_out_once() -> None:
    compressor = Scaled(4.0)
    simulator = Simulator(compressor, 1)
    for _ in range(3):
        simulator.step([{"w": torch.ones(5)}])
    assert compressor.calls == 1 + 3


def test_both_halves_are_used(world_size: int) -> None:
    gradients = normal_gradients(world_size)
    plain = Simulator("none", world_size).step(TORCH.arrays(gradients))[0]
    means = Simulator(DoubledInBetween, world_size).step(TORCH.arrays(gradients))[0]
    for name, x in plain.items():
        assert_close(means[name], x, 1e-6, scale=4.0)


def test_a_cast_of_horovods_api_is_our_cast(world_size: int) -> None:
    theirs, ours = Simulator(HalfPrecision, world_size), Simulator(AllReduce(Cast()), world_size)
    gradients = TORCH.arrays(normal_gradients(world_size))
    for left, right in zip(theirs.step(gradients), ours.step(gradients), strict=True):
        assert {name: bits(x) for name, x in left.items()} == {name: bits(x) for name, x in right.items()}
    assert theirs.sent_bytes == ours.sent_bytes


@pytest.mark.skipif(importlib.util.find_spec("horovod") is None, reason="Horovod is not installed")
def test_horovods_own(world_size: int) -> None:
    from horovod.torch.compression import Compression

    assert resolve(Compression.fp16) == HorovodCompressor("horovod.torch.compression:FP16Compressor")
    gradients = [{"w": torch.full((3,), 60000.0)} for _ in range(world_size)]
    mean = Simulator(Compression.fp16, world_size).step(gradients)[0]["w"]
    assert_close(mean, np.full(3, 60000.0), 2.0**-10)


def test_a_class_that_cannot_be_found_again_is_refused() -> None:
    class Hidden(DoubledInBetween):
        pass

    with pytest.raises(ConfigurationError, match="Hidden"):
        resolve(Hidden)
