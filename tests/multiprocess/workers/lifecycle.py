"""How optimizers live: their classes, their successors, their rounds, what they do after a join or a load."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import horovod.torch as stock
import torch
from torch import nn

import hvd_compress.torch as hvd
from hvd_compress import Identity, PowerSGD, Spec, UsageError
from hvd_compress.drivers import RoundTrip, complete
from hvd_compress.exchange import Worker, make_plan
from hvd_compress.torch.transport import HorovodTransport

from .common import (
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


class Careful(torch.optim.SGD):
    """A user's optimizer that adds something to the step of the class above."""

    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


@check(cases=["Identity", "PowerSGD"])
def a_step_that_calls_the_one_above_exchanges_once(name: str) -> None:
    torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)  # from here on torch watches the steps of both classes
    params = parameters()
    careful = Careful(list(params.values()), lr=0.5)
    scheduler = torch.optim.lr_scheduler.StepLR(careful, step_size=1, gamma=1.0)
    compressor = {"Identity": Identity(), "PowerSGD": PowerSGD(rank=10**6, min_saving=0)}[name]
    optimizer = hvd.DistributedOptimizer(careful, params.items(), compression=compressor, op=hvd.Sum, allow_larger=True)
    expected = {n: torch.zeros_like(p) for n, p in params.items()}
    for step in range(3):
        everyone = gradients(step)
        backward(params, everyone[stock.rank()])
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        expected = {n: x - 0.5 * stock.size() * mean_of(everyone)[n] for n, x in expected.items()}
    assert optimizer.exchange.meter.steps == 3
    assert_close({n: p.detach() for n, p in params.items()}, expected, 1e-4)


@check(min_ranks=2, cases=["agreement", "exchange"])
def a_rank_that_waits_leaves_the_core_to_others(what: str) -> None:
    params = parameters()
    optimizer = distributed(params, Identity())
    if what == "exchange":  # after the first step, in which ranks agree on what is sparse before anything else
        exchange(optimizer, params, gradients(0)[stock.rank()])
    if stock.rank() == 0:
        time.sleep(2.0)
    backward(params, gradients(1)[stock.rank()])
    began, computed = time.perf_counter(), time.thread_time()
    optimizer.synchronize()
    waited = time.perf_counter() - began
    if stock.rank() > 0:
        assert waited > 1.0, waited
        assert time.thread_time() - computed < 0.5 * waited


@check(cases=["dropped", "kept"])
def a_second_optimizer_takes_over(name: str) -> None:
    params = parameters()
    first = distributed(params, PowerSGD(rank=2))
    exchange(first, params, gradients(0)[stock.rank()])
    if name == "dropped":
        del first
    second = distributed(params, Identity())
    for step in range(1, 4):
        everyone = gradients(step)
        assert_close(exchange(second, params, everyone[stock.rank()]), mean_of(everyone))
    if name == "kept":  # the older one still exchanges at its own steps, without hooks
        assert first.exchange.meter.steps == 1
        first.exchange.synchronize()
        assert first.exchange.meter.steps == 2


@check(min_ranks=2, seconds=90)
def rounds_of_several_buckets_cannot_cross() -> None:
    """Hooks on two ranks may advance different buckets; what follows must still end."""
    plan = make_plan(PowerSGD(rank=2, power_iterations=2), [(n, Spec((64, 64))) for n in "ab"], 2, bucket_bytes=1)
    worker = Worker(plan, stock.rank(), stock.size())
    transport = HorovodTransport(stock.global_process_set)
    own = {n: torch.full((64, 64), 1.0 + stock.rank()) for n in "ab"}
    trips = [RoundTrip(worker.begin(i, own), transport, f"lifecycle.{i}", worker.meter) for i in (0, 1)]
    ahead, rounds = (trips[1], 1) if stock.rank() == 0 else (trips[0], 2)
    while ahead.exchange.round_number < rounds:
        ahead.advance_if_arrived()
        time.sleep(0.001)
    complete(trips)
    for i, trip in enumerate(trips):
        for mean in worker.finish(i, trip.exchange).values():
            assert_equal_on_ranks({"mean": mean})


@check(cases=["alternate", "start_after"])
def training_goes_on_alike_after_a_join(name: str) -> None:
    compressor = {"alternate": PowerSGD(rank=2, alternate=True), "start_after": PowerSGD(rank=2, start_after=5)}[name]
    params = parameters()
    optimizer = distributed(params, compressor)
    for step in range(4 if stock.rank() == 0 else 3):
        exchange(optimizer, params, gradients(step)[stock.rank()])
    hvd.join()
    assert optimizer.exchange.step == 4
    for step in range(4, 8):
        assert_equal_on_ranks(exchange(optimizer, params, gradients(step)[stock.rank()]))


@check()
def state_is_not_saved_while_gradients_are_on_their_way() -> None:
    params = parameters()
    optimizer = distributed(params, PowerSGD(rank=2))
    own = gradients(0)[stock.rank()]
    exchange(optimizer, params, own)
    backward(params, own)
    with raises(UsageError, "save it after step()"):
        optimizer.exchange.state_dict()
    optimizer.synchronize()
    assert optimizer.exchange.state_dict()["step"] == 2


@check()
def a_loaded_state_survives_a_batch_without_words() -> None:
    """The embedding is known to be sparse from the saved state, so nothing is planned anew and lost."""
    saved = _sparse_optimizer({"table": True, "dense": True})[0].exchange.state_dict()
    optimizer, params = _sparse_optimizer({})
    optimizer.exchange.load_state_dict(saved)
    _one_step(optimizer, params, {"table": False, "dense": True})
    assert optimizer.exchange.step == saved["step"] + 1
    _one_step(optimizer, params, {"table": True, "dense": True})
    assert optimizer.exchange.step == saved["step"] + 2


def _sparse_optimizer(touched: Mapping[str, bool]) -> tuple[Any, Mapping[str, nn.Parameter]]:
    params = {"table": nn.Parameter(torch.zeros(20, 8)), "dense": nn.Parameter(torch.zeros(30, 20))}
    optimizer = distributed(params, PowerSGD(rank=2))
    if touched:
        _one_step(optimizer, params, touched)
    return optimizer, params


def _one_step(optimizer: Any, params: Mapping[str, nn.Parameter], touched: Mapping[str, bool]) -> None:
    if touched["table"]:
        words = torch.tensor([1, 2 + stock.rank()])
        nn.functional.embedding(words, params["table"], sparse=True).sum().backward()
    if touched["dense"]:
        (params["dense"] * torch.ones(30, 20)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
