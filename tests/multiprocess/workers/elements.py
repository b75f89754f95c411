"""Element types, layouts and names of parameters."""

from __future__ import annotations

from typing import Any

import horovod.torch as stock
import torch
from torch import nn

import hvd_compress.torch as hvd
from hvd_compress import Cast, ConfigurationError, ErrorFeedback, HorovodCompressor, Identity, PowerSGD, TwoWay

from .common import (
    SHAPES,
    assert_close,
    assert_equal_on_ranks,
    backward,
    distributed,
    exchange,
    gradients,
    mean_of,
    parameters,
    raises,
)
from .harness import check

DTYPES = ("float64", "float32", "float16", "bfloat16")
COMPRESSORS: dict[str, Any] = {
    "identity": Identity(),
    "full-rank": PowerSGD(rank=10**6, min_saving=0),
    "fp16": Cast("float16"),
    "bf16": Cast("bfloat16"),
    "stock-fp16": HorovodCompressor("horovod.torch.compression:FP16Compressor"),
}
# One rounding to a type of so many bits for every rank's gradient and one for the mean, relative to the largest.
PRECISION = {"float64": 1e-12, "float32": 1e-5, "float16": 2e-3, "bfloat16": 1.6e-2}
PAYLOAD = {"fp16": "float16", "bf16": "bfloat16", "stock-fp16": "float16"}


@check(cases=[f"{compressor}-of-{dtype}" for compressor in COMPRESSORS for dtype in DTYPES])
def means_are_right(case: str) -> None:
    compressor, dtype = case.split("-of-")
    kind = getattr(torch, dtype)
    params = parameters(dtype=kind)
    optimizer = distributed(params, COMPRESSORS[compressor])
    tolerance = max(PRECISION[dtype], PRECISION[PAYLOAD.get(compressor, "float64")])
    for step in range(2):
        everyone = gradients(step, dtype=kind)
        found = exchange(optimizer, params, everyone[stock.rank()])
        assert all(x.dtype is kind for x in found.values())
        assert_close(found, mean_of(everyone), tolerance)
    assert_equal_on_ranks(found)


@check(cases=["powersgd", "feedback-fp16"])
def low_precision_parameters_lose_nothing_over_time(name: str) -> None:
    """With error feedback in float32 the sum of all updates of a half parameter follows the sum of gradients."""
    compressor = {"powersgd": PowerSGD(rank=2, min_saving=0), "feedback-fp16": ErrorFeedback(Cast())}[name]
    shapes = {"matrix": (12, 9)}
    params = parameters(shapes, torch.float16)
    optimizer = distributed(params, compressor)
    everyone = gradients(0, shapes, torch.float16)
    total = torch.zeros(12, 9, dtype=torch.float64)
    steps = 40
    for _ in range(steps):
        total += exchange(optimizer, params, everyone[stock.rank()])["matrix"].double()
    # What is left in the residual is bounded, so it is less and less of the sum; rounding is 11 bits a step.
    assert_close({"matrix": total / steps}, mean_of(everyone), 0.25 if name == "powersgd" else 2e-3)


@check(cases=["identity", "full-rank", "fp16"])
def several_element_types_in_one_model(compressor: str) -> None:
    params = {d: nn.Parameter(torch.zeros(8, 6, dtype=getattr(torch, d))) for d in DTYPES}
    optimizer = distributed(params, COMPRESSORS[compressor])
    wide = gradients(0, {d: (8, 6) for d in DTYPES}, torch.float64)
    everyone = [{d: g.to(params[d].dtype) for d, g in own.items()} for own in wide]
    found, mean = exchange(optimizer, params, everyone[stock.rank()]), mean_of(everyone)
    for dtype in DTYPES:
        allowed = max(PRECISION[dtype], PRECISION[PAYLOAD.get(compressor, "float64")])
        assert_close({dtype: found[dtype]}, {dtype: mean[dtype]}, allowed)


@check(cases=["fp16-of-float32", "stock-fp16-of-float32", "fp16-of-float16", "identity-of-float16", "bf16-of-float16"])
def large_half_gradients_average_finite(case: str) -> None:
    """60000 fits into float16, the sum over two ranks does not: divide before the sum."""
    compressor, dtype = case.split("-of-")
    kind = getattr(torch, dtype)
    shapes = {"a": (8, 6), "b": (5,)}
    params = parameters(shapes, kind)
    optimizer = distributed(params, COMPRESSORS[compressor])
    found = exchange(
        optimizer, params, {name: torch.full(shape, 60000.0, dtype=kind) for name, shape in shapes.items()}
    )
    for x in found.values():
        # Equal numbers average to themselves, to within two roundings to 11 bits (8 for bfloat16).
        assert torch.isfinite(x).all()
        assert (x.double() - 60000.0).abs().max() <= 60000.0 * (1e-2 if compressor == "bf16" else 2e-3)


@check(cases=list(COMPRESSORS))
def layouts(compressor: str) -> None:
    """Channels-last parameters and transposed ones: gradients have the same strides, means the right places."""
    conv = nn.Parameter(torch.zeros(6, 4, 3, 3).to(memory_format=torch.channels_last))
    transposed = nn.Parameter(torch.zeros(5, 14).t())
    params = {"conv": conv, "transposed": transposed}
    shapes = {"conv": (6, 4, 3, 3), "transposed": (14, 5)}
    optimizer = distributed(params, COMPRESSORS[compressor])
    for step in range(2):
        everyone = gradients(step, shapes)
        (conv * everyone[stock.rank()]["conv"].to(memory_format=torch.channels_last)).sum().backward()
        (transposed * everyone[stock.rank()]["transposed"].t().contiguous().t()).sum().backward()
        assert conv.grad.is_contiguous(memory_format=torch.channels_last)
        assert not transposed.grad.is_contiguous()
        optimizer.synchronize()
        tolerance = PRECISION[PAYLOAD.get(compressor, "float32")]
        assert_close({n: p.grad for n, p in params.items()}, mean_of(everyone), tolerance)
        optimizer.zero_grad()


@check()
def gradients_made_of_one_number() -> None:
    """The gradient of a sum is one number repeated; nobody may write through such a view."""
    weight = nn.Parameter(torch.zeros(24, 18))
    optimizer = hvd.DistributedOptimizer(
        torch.optim.SGD([weight], lr=1.0),
        [("weight", weight)],
        compression=PowerSGD(rank=10**6, min_saving=0),
        allow_larger=True,
    )
    for _ in range(2):
        ((1.0 + stock.rank()) * weight.sum()).backward()
        optimizer.synchronize()
        mean = sum(1.0 + r for r in range(stock.size())) / stock.size()
        assert_close({"weight": weight.grad}, {"weight": torch.full((24, 18), mean)})
        optimizer.zero_grad()


@check(cases=["int64", "int32", "bool", "complex64"])
def other_numbers_are_refused_by_name(dtype: str) -> None:
    kind = getattr(torch, dtype)
    odd = nn.Parameter(torch.zeros(4, dtype=kind), requires_grad=kind.is_complex)
    fine = nn.Parameter(torch.zeros(4))
    plain = torch.optim.SGD([fine, odd], lr=0.1)
    with raises(ConfigurationError, "'odd.one'", dtype):
        hvd.DistributedOptimizer(plain, [("fine", fine), ("odd.one", odd)], compression=Identity(), allow_larger=True)


@check()
def names() -> None:
    params = parameters({"a": (3,), "b": (3,)})
    plain = torch.optim.SGD(params.values(), lr=0.1)
    with raises(ConfigurationError, "'a'", "twice"):
        hvd.DistributedOptimizer(plain, [("a", params["a"]), ("a", params["b"])], allow_larger=True)
    with raises(ConfigurationError, "1 parameter(s)", "model.named_parameters()"):
        hvd.DistributedOptimizer(plain, [("a", params["a"])], allow_larger=True)
    with raises(ConfigurationError, "model.named_parameters()"):
        hvd.DistributedOptimizer(plain, [params["a"], params["b"]], allow_larger=True)
    # None of these made the optimizer distributed.
    hvd.DistributedOptimizer(plain, params.items(), allow_larger=True)


@check()
def names_are_optional() -> None:
    params = parameters()
    optimizer = hvd.DistributedOptimizer(
        torch.optim.SGD(params.values(), lr=0.125), compression=PowerSGD(rank=10**6, min_saving=0), allow_larger=True
    )
    for step in range(2):
        assert_close(exchange(optimizer, params, gradients(step)[stock.rank()]), mean_of(gradients(step)))


@check()
def names_of_other_models_are_left_out() -> None:
    """named_parameters may name more than the optimizer trains."""
    params = parameters()
    other = nn.Parameter(torch.zeros(3, 3))
    named = [("other", other), *params.items()]
    plain = torch.optim.SGD(params.values(), lr=0.125)
    optimizer = hvd.DistributedOptimizer(plain, iter(named), compression=TwoWay(Identity()), allow_larger=True)
    assert {unit.name for unit in optimizer.exchange.plan.units} == set(SHAPES)
    backward(params, gradients(0)[stock.rank()])
    optimizer.step()
    assert_close({n: -p.detach() / 0.125 for n, p in params.items()}, mean_of(gradients(0)))
