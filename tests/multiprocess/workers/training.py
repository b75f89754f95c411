"""Training equals what Horovod's own optimizer does where it should, and a user's script runs unchanged."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import horovod.torch as stock
import torch

import hvd_compress.torch as hvd
from hvd_compress import Cast, HorovodCompressor, Identity, PowerSGD

from .common import SmallCNN, assert_close, assert_equal_on_ranks, small_cnn, train, weights
from .harness import check

STEPS = 50
# Fifty steps grow rounding errors: in float32 by some hundred times, in float64 from far further down.
TRAINED = {torch.float32: 2e-4, torch.float64: 1e-9}
FULL_RANK = PowerSGD(rank=10**6, min_saving=0)


def _trained(
    framework: Any, dtype: torch.dtype, steps: int = STEPS, **options: Any
) -> tuple[SmallCNN, list[float], Any]:
    model = small_cnn(dtype=dtype)
    plain = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    if framework is hvd:
        options["allow_larger"] = True
    optimizer = framework.DistributedOptimizer(plain, named_parameters=model.named_parameters(), **options)
    losses = train(model, optimizer, steps, dtype)
    return model, losses, optimizer


@functools.cache
def _trained_by_stock(dtype: torch.dtype) -> tuple[dict[str, torch.Tensor], list[float]]:
    model, losses, _ = _trained(stock, dtype)
    return weights(model), losses


@check(cases=["float32", "float64"])
def stock_learns(dtype: str) -> None:
    """What the others are compared with is a model that changed and got better."""
    trained, losses = _trained_by_stock(getattr(torch, dtype))
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5]), losses
    assert_equal_on_ranks(trained)


@check(cases=["float32", "float64"])
def identity_equals_stock(dtype: str) -> None:
    kind = getattr(torch, dtype)
    expected, _ = _trained_by_stock(kind)
    model, _, _ = _trained(hvd, kind, compression=Identity)
    assert_close(weights(model), expected, TRAINED[kind])
    assert_equal_on_ranks(weights(model))


@check(cases=["float32", "float64"])
def full_rank_powersgd_equals_stock(dtype: str) -> None:
    kind = getattr(torch, dtype)
    expected, _ = _trained_by_stock(kind)
    model, _, optimizer = _trained(hvd, kind, compression=FULL_RANK)
    assert sum(not unit.dense for unit in optimizer.exchange.plan.units) == 3
    assert_close(weights(model), expected, TRAINED[kind])
    assert_equal_on_ranks(weights(model))


@check()
def low_rank_powersgd_learns_and_differs_from_stock() -> None:
    """The comparison above would notice if gradients were not compressed as asked."""
    expected, dense = _trained_by_stock(torch.float32)
    model, losses, _ = _trained(hvd, torch.float32, compression=PowerSGD(rank=1))
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5]), losses
    assert max(abs(a - b) for a, b in zip(losses, dense, strict=True)) > 1e-3
    assert_equal_on_ranks(weights(model))
    assert weights(model).keys() == expected.keys()


WAYS = {
    "instance": (lambda: PowerSGD(rank=4), PowerSGD(rank=4)),
    "class": (lambda: PowerSGD, PowerSGD()),
    "name": (lambda: "PowerSGD", PowerSGD()),
    "name-fp16": (lambda: "fp16", Cast("float16")),
    "name-bf16": (lambda: "bf16", Cast("bfloat16")),
    "factory": (lambda: lambda: PowerSGD(rank=2), PowerSGD(rank=2)),
    "stock-none": (lambda: hvd.Compression.none, Identity()),
    "stock-fp16": (
        lambda: hvd.Compression.fp16,
        HorovodCompressor("horovod.torch.compression:FP16Compressor"),
    ),
}


@check(cases=WAYS)
def compression_given_as(way: str) -> None:
    make, meant = WAYS[way]
    model, _, optimizer = _trained(hvd, torch.float32, steps=10, compression=make())
    assert repr(optimizer.compression) == repr(meant)
    reference, _, _ = _trained(hvd, torch.float32, steps=10, compression=meant)
    # Ten steps of the same exchange; Horovod may add up in another order.
    assert_close(weights(model), weights(reference), 1e-4)
    assert_equal_on_ranks(weights(model))


@check()
def compression_none_is_the_default() -> None:
    _, _, optimizer = _trained(hvd, torch.float32, steps=1)
    assert repr(optimizer.compression) == "Identity()"


@check()
def stock_fp16_equals_stock() -> None:
    expected, _, _ = _trained(stock, torch.float32, steps=5, compression=stock.Compression.fp16)
    model, _, _ = _trained(hvd, torch.float32, steps=5, compression=hvd.Compression.fp16)
    # Ours divides before it rounds, stock after: a unit in the last of 11 bits, of updates smaller than the weights.
    assert_close(weights(model), weights(expected), 2e-3)


def _run_user_script(source: str, **options: Any) -> dict[str, torch.Tensor]:
    namespace: dict[str, Any] = {"__name__": "user_script"}
    exec(compile(source, "user_script.py", "exec"), namespace)
    return namespace["train"](**options)


def _sources() -> tuple[str, str]:
    source = Path(__file__).with_name("user_script.py").read_text()
    ours, changes = re.subn(r"^import horovod\.torch as hvd$", "import hvd_compress.torch as hvd", source, flags=re.M)
    assert changes == 1
    return source, ours


@check()
def user_script_gives_the_same_after_changing_the_import() -> None:
    source, ours = _sources()
    expected = _run_user_script(source)
    found = _run_user_script(ours)
    # Adam divides by the root of small second moments, which grows rounding errors; the steps are of size 1e-2.
    assert_close(found, expected, 1e-3)
    assert_equal_on_ranks(found)


@check(cases=["PowerSGD", "powersgd-name", "Cast", "bf16"])
def user_script_trains_with(compression: str) -> None:
    _, ours = _sources()
    choice = {"PowerSGD": PowerSGD, "powersgd-name": "powersgd", "Cast": Cast, "bf16": "bf16"}[compression]
    dense = _run_user_script(ours)
    found = _run_user_script(ours, compression=choice)
    assert_equal_on_ranks(found)
    assert all(torch.isfinite(x).all() for x in found.values())
    assert any(not torch.equal(found[name], dense[name]) for name in dense)
