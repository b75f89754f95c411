"""Ranks that were set up differently, or whose replicas differ, are told so on every rank at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import horovod.torch as stock
import torch
from torch import nn

import hvd_compress.torch as hvd
from hvd_compress import (
    Cast,
    Identity,
    PowerSGD,
    RankDisagreementError,
    ReplicaDivergenceError,
)

from .common import (
    assert_equal_on_ranks,
    distributed,
    exchange,
    gradients,
    parameters,
    raises,
    small_cnn,
    train,
    weights,
)
from .harness import check

# Within 10 s on every rank, or it counts as a hang.
LIMIT = 60.0


def _plain(**options: Any) -> None:
    distributed(parameters(), **options)


def _shapes(shape: tuple[int, ...]) -> None:
    distributed(parameters({"a": (6, 4), "layer": shape}), Identity())


def _names(name: str) -> None:
    distributed(parameters({"a": (6, 4), name: (3, 2)}), Identity())


def _more(count: int) -> None:
    distributed(parameters({f"layer{i}": (3, 2) for i in range(count)}), Identity())


def _groups(count: int) -> None:
    distributed(parameters(), Identity(), groups=count)


# What to do, the argument of the first rank and of the last, and what the message must say of each.
CASES: dict[str, tuple[Callable[[Any], None], Any, Any, str, str]] = {
    "rank": (lambda r: _plain(compression=PowerSGD(rank=r)), 2, 3, "PowerSGD(rank=2", "PowerSGD(rank=3"),
    "seed": (lambda s: _plain(compression=PowerSGD(seed=s)), 3, 7, "PowerSGD(seed=3)", "PowerSGD(seed=7)"),
    "compressor": (lambda c: _plain(compression=c), PowerSGD(), Cast(), "PowerSGD(", "Cast("),
    "dtype": (lambda d: _plain(compression=Cast(d)), "float16", "bfloat16", "float16", "bfloat16"),
    "shape": (_shapes, (3, 2), (2, 3), "layer: [3, 2]", "layer: [2, 3]"),
    "dimensions": (_shapes, (6,), (3, 2), "layer: [6]", "layer: [3, 2]"),
    "name": (_names, "left", "right", "left", "right"),
    "number": (_more, 3, 4, "rank 0 has", "layer3: [3, 2]"),
    "element-type": (
        lambda d: distributed(parameters({"a": (3, 2)}, dtype=d), Identity()),
        torch.float32,
        torch.float64,
        "a: [3, 2] float32",
        "a: [3, 2] float64",
    ),
    "op": (lambda op: _plain(compression=Identity(), op=op), hvd.Average, hvd.Sum, "average=True", "average=False"),
    "factor": (
        lambda f: _plain(compression=Identity(), gradient_predivide_factor=f),
        1.0,
        2.0,
        "gradient_predivide_factor=1.0",
        "gradient_predivide_factor=2.0",
    ),
    "sparse": (
        lambda s: _plain(compression=Identity(), sparse_as_dense=s),
        False,
        True,
        "sparse_as_dense=False",
        "sparse_as_dense=True",
    ),
    "bucket": (
        lambda b: _plain(compression=Identity(), bucket_megabytes=b),
        25.0,
        1.0,
        "bucket_bytes=25000000.0",
        "bucket_bytes=1000000.0",
    ),
    "check": (
        lambda n: _plain(compression=Identity(), check_replicas_every=n),
        0,
        5,
        "check_replicas_every=0",
        "check_replicas_every=5",
    ),
    "groups": (_groups, 2, 3, "rank 0 has", "has"),
}


@check(min_ranks=2, cases=CASES, seconds=LIMIT)
def disagreement_is_reported_on_every_rank(case: str) -> None:
    set_up, first, last, of_first, of_last = CASES[case]
    is_last = stock.rank() == stock.size() - 1
    with raises(RankDisagreementError, of_first, of_last, "Ranks 0 and"):
        set_up(last if is_last else first)
    # All ranks can go on together afterwards.
    params = parameters({"a": (6, 4)})
    mean = exchange(distributed(params, PowerSGD(rank=1)), params, gradients(0, {"a": (6, 4)})[stock.rank()])
    assert_equal_on_ranks(mean)


@check(min_ranks=2, seconds=LIMIT)
def passes_may_differ_between_ranks() -> None:
    """How many backward passes make a gradient is each rank's own business: the exchange is the same."""
    shapes = {"a": (6, 4)}
    params = parameters(shapes)
    passes = 1 + stock.rank()
    optimizer = distributed(params, PowerSGD(rank=1), backward_passes_per_step=passes)
    for step in range(2):
        for _ in range(passes):
            (params["a"] * gradients(step, shapes)[stock.rank()]["a"]).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert_equal_on_ranks({"a": params["a"].detach()})


def _optimizer(model: nn.Module, compression: Any = PowerSGD, **options: Any) -> Any:
    plain = torch.optim.SGD(model.parameters(), lr=0.05)
    return hvd.DistributedOptimizer(plain, model.named_parameters(), compression=compression, **options)


@check(min_ranks=2, cases=["PowerSGD", "Identity", "fp16"], seconds=LIMIT)
def replicas_that_start_apart(name: str) -> None:
    model = small_cnn(seed=stock.rank())
    optimizer = _optimizer(model, {"PowerSGD": PowerSGD, "Identity": Identity, "fp16": "fp16"}[name])
    with raises(ReplicaDivergenceError, "'first.weight'", "rank 0 and rank 1", "step 1", "hvd.broadcast_parameters"):
        train(model, optimizer, 1)


@check(min_ranks=2, seconds=LIMIT)
def one_parameter_that_is_apart_is_named() -> None:
    model = small_cnn()
    if stock.rank() == stock.size() - 1:
        with torch.no_grad():
            model.last.bias[3] += 0.01
    with raises(ReplicaDivergenceError, "'last.bias'", f"rank 0 and rank {stock.size() - 1}"):
        train(model, _optimizer(model), 1)


@check(min_ranks=2, seconds=LIMIT)
def replicas_brought_together_are_fine() -> None:
    model = small_cnn(seed=stock.rank())
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    train(model, _optimizer(model, check_replicas_every=1), 4)
    assert_equal_on_ranks(weights(model))


@check(min_ranks=2, cases=[2, 0], seconds=LIMIT)
def replicas_that_come_apart_later(every: int) -> None:
    model = small_cnn()
    optimizer = _optimizer(model, check_replicas_every=every)
    train(model, optimizer, 2)
    if stock.rank() == 0:
        with torch.no_grad():
            model.second.weight[0, 0] += 0.01
    train(model, optimizer, 1, first=2)
    if every:
        with raises(ReplicaDivergenceError, "'second.weight'", "step 4"):
            train(model, optimizer, 1, first=3)
    else:
        train(model, optimizer, 1, first=3)


@check(min_ranks=2, cases=["one", "all"], seconds=LIMIT)
def not_a_number(where: str) -> None:
    """A NaN on one rank is a difference; the same NaN on all of them is none."""
    model = small_cnn()
    if stock.rank() == 0 or where == "all":
        with torch.no_grad():
            model.last.bias[0] = float("nan")
    optimizer = _optimizer(model, Identity)
    for p in model.parameters():  # a gradient of zero everywhere leaves the parameters as they are
        p.grad = torch.zeros_like(p)
    if where == "all":
        optimizer.step()
        return
    with raises(ReplicaDivergenceError, "'last.bias'"):
        optimizer.step()
