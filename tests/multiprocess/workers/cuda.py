"""The same on a CUDA device: alone through NCCL, or two ranks that share a device through Gloo."""

from __future__ import annotations

from typing import Any

import horovod.torch as stock
import torch
from torch import nn

import hvd_compress.torch as hvd
from hvd_compress import Cast, ErrorFeedback, Identity, PowerSGD, Simulator

from .common import SHAPES, assert_close, assert_equal_on_ranks, gradients, small_cnn, train, weights
from .harness import check

DEVICE = "cuda:0"
COMPRESSORS: dict[str, Any] = {
    "identity": Identity(),
    "powersgd": PowerSGD(rank=2),
    "alternate": PowerSGD(rank=2, alternate=True),
    "fp16": Cast("float16"),
    "bf16": Cast("bfloat16"),
    "feedback-fp16": ErrorFeedback(Cast("float16")),
}
# float32 through a QR of another library; 16-bit payloads may round the other way, one unit in the last place.
TOLERANCE = {"fp16": 2e-3, "feedback-fp16": 2e-3, "bf16": 1e-2}


def _trained(framework: Any, **options: Any) -> dict[str, torch.Tensor]:
    torch.cuda.set_device(0)
    model = small_cnn(dtype=torch.float64, device=DEVICE)
    plain = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    if framework is hvd:
        options["allow_larger"] = True
    optimizer = framework.DistributedOptimizer(plain, named_parameters=model.named_parameters(), **options)
    train(model, optimizer, 20, torch.float64, device=DEVICE)
    return weights(model)


@check(cases=["Identity", "full-rank"])
def training_equals_stock(name: str) -> None:
    compression = Identity if name == "Identity" else PowerSGD(rank=10**6, min_saving=0)
    found, expected = _trained(hvd, compression=compression), _trained(stock)
    assert all(x.is_cuda for x in found.values())
    assert_close(found, expected, 1e-9)  # twenty steps grow the rounding errors of float64
    assert_equal_on_ranks(found)


@check(cases=COMPRESSORS)
def equals_the_simulator(name: str) -> None:
    params = {n: nn.Parameter(torch.zeros(shape, device=DEVICE)) for n, shape in SHAPES.items()}
    plain = torch.optim.SGD(params.values(), lr=0.1)
    optimizer = hvd.DistributedOptimizer(
        plain, params.items(), compression=COMPRESSORS[name], bucket_megabytes=1e6, allow_larger=True
    )
    simulator = Simulator(COMPRESSORS[name], stock.size(), allow_larger=True)
    for step in range(4):
        everyone = [{n: g.to(DEVICE) for n, g in own.items()} for own in gradients(step)]
        for n, grad in everyone[stock.rank()].items():
            (params[n] * grad).sum().backward()
        optimizer.synchronize()
        found = {n: p.grad.clone() for n, p in params.items()}
        assert all(x.is_cuda for x in found.values())
        optimizer.zero_grad()
        expected = simulator.step([dict(reversed(own.items())) for own in everyone])[stock.rank()]
        assert_close(found, {n: expected[n] for n in found}, TOLERANCE.get(name, 3e-5))
    assert_equal_on_ranks(found)
    planned = sum(optimizer.exchange.plan.wire_bytes(stock.size(), step) for step in range(4))
    assert optimizer.exchange.meter.sent_bytes == planned


@check(cases=["overlap", "late"], seconds=60.0)
def shuffled_orders_give_the_same(mode: str) -> None:
    shapes = {f"layer{i}": (16, 12) for i in range(6)}
    params = {n: nn.Parameter(torch.zeros(shape, device=DEVICE)) for n, shape in shapes.items()}
    plain = torch.optim.SGD(params.values(), lr=0.1)
    optimizer = hvd.DistributedOptimizer(
        plain,
        params.items(),
        compression=PowerSGD(rank=2),
        bucket_megabytes=300e-6,
        overlap=mode == "overlap",
        allow_larger=True,
    )
    simulator = Simulator(PowerSGD(rank=2), stock.size(), allow_larger=True)
    for step in range(10):
        everyone = [{n: g.to(DEVICE) for n, g in own.items()} for own in gradients(step, shapes)]
        turn = step * (1 + stock.rank()) % 6
        for n in [*list(shapes)[turn:], *list(shapes)[:turn]]:
            (params[n] * everyone[stock.rank()][n]).sum().backward()
        optimizer.synchronize()
        found = {n: p.grad.clone() for n, p in params.items()}
        optimizer.zero_grad()
        expected = simulator.step([dict(reversed(own.items())) for own in everyone])[stock.rank()]
        assert_close(found, {n: expected[n] for n in found}, 1e-4)
    assert_equal_on_ranks(found)


@check()
def state_lives_on_the_device_and_survives_a_checkpoint() -> None:
    params = {"matrix": nn.Parameter(torch.zeros(24, 18, device=DEVICE))}
    shapes = {"matrix": (24, 18)}

    def make() -> Any:
        plain = torch.optim.SGD(params.values(), lr=0.0)
        return hvd.DistributedOptimizer(plain, params.items(), compression=PowerSGD(rank=2), allow_larger=True)

    def step(optimizer: Any, number: int) -> torch.Tensor:
        (params["matrix"] * gradients(number, shapes)[stock.rank()]["matrix"].to(DEVICE)).sum().backward()
        optimizer.synchronize()
        mean = params["matrix"].grad.clone()
        optimizer.zero_grad()
        return mean

    first = make()
    step(first, 0)
    saved = first.exchange.state_dict()
    assert all(leaf.is_cuda for leaf in saved["units"]["matrix"]["leaves"].values())
    expected = step(first, 1)
    del first  # its hooks stay on the parameter, but nobody exchanges for it
    params["matrix"] = nn.Parameter(torch.zeros(24, 18, device=DEVICE))
    second = make()
    moved = {path: leaf.cpu() for path, leaf in saved["units"]["matrix"]["leaves"].items()}
    saved["units"]["matrix"]["leaves"] = moved
    second.exchange.load_state_dict(saved)
    assert_close({"matrix": step(second, 1)}, {"matrix": expected})
