"""ScaleCom over Horovod: the simulator's numbers, with a rank that leads at every shard, and how alike ranks are."""

from __future__ import annotations

from typing import Any

import horovod.torch as stock
import torch

from hvd_compress import Identity, ScaleCom, Simulator, UsageError
from hvd_compress.monitors import index_distance, memory_cosine

from .common import (
    assert_close,
    backward,
    check_against_the_simulator,
    counted_collectives,
    distributed,
    exchange,
    gradients,
    parameters,
    raises,
)
from .families import SCALECOM as CASES
from .harness import check

STEPS = 7


def _one_bucket(compressor: Any) -> tuple[Any, Any]:
    params = parameters()
    return params, distributed(params, compressor, bucket_megabytes=1e6)


@check(cases=CASES)
def equals_the_simulator(case: str) -> None:
    check_against_the_simulator(CASES[case], STEPS, 1e-6, bucket_megabytes=1e6)


@check(cases=CASES)
def bytes_are_as_planned(case: str) -> None:
    params, optimizer = _one_bucket(CASES[case])
    exchange(optimizer, params, gradients(0)[stock.rank()])
    for step in range(1, 4):
        sent = optimizer.exchange.meter.sent_bytes
        with counted_collectives() as counts:
            exchange(optimizer, params, gradients(step)[stock.rank()])
        assert optimizer.exchange.meter.sent_bytes - sent == optimizer.exchange.plan.wire_bytes(stock.size(), step)
        if stock.size() > 1 and not (case == "start-after" and step < 2):
            # Indices by element type, then values; dense gradients travel with the first round.
            assert counts["collectives"] <= 5


@check(min_ranks=2)
def a_number_that_is_not_finite_on_one_rank_is_seen_by_all() -> None:
    params, optimizer = _one_bucket(ScaleCom(5, min_size=8))
    for step in range(2 * stock.size()):
        own = gradients(step)[stock.rank()]
        spoilt = step == stock.size()
        if spoilt and stock.rank() == stock.size() - 1:
            own["matrix"][0, 0] = float("nan")
        found = exchange(optimizer, params, own)
        assert bool(torch.isfinite(found["matrix"]).all()) is not spoilt, step
        assert torch.isfinite(found["conv"]).all()


@check(cases=["similar", "strangers"])
def similarity_is_that_of_all_residuals(case: str) -> None:
    compressor = ScaleCom(5, beta=0.5, min_size=8)
    params, optimizer = _one_bucket(compressor)
    simulator = Simulator(compressor, stock.size(), allow_larger=True)
    for step in range(4):
        everyone = gradients(step)
        if case == "similar":
            everyone = [{name: x + 3 * everyone[0][name] for name, x in own.items()} for own in everyone]
        exchange(optimizer, params, everyone[stock.rank()])
        simulator.step(everyone)
    meter = (optimizer.exchange.meter.sent_bytes, optimizer.exchange.meter.collectives)
    for ratio in (5, 10):
        found = optimizer.exchange.similarity(ratio)
        assert repr(found) == stock.broadcast_object(repr(found), 0, name="similarity")
        assert {"matrix", "twin", "conv"} <= found.keys() and "bias" not in found
        for name, one in found.items():
            memories = [saved["units"][name]["leaves"]["error"] for saved in simulator.state_dicts()]
            cosine, distance = memory_cosine(memories), index_distance(memories, -(-memories[0].numel() // ratio))
            assert abs(one.index_distance - distance) < 1e-9, name
            assert stock.size() == 1 or abs(one.cosine - cosine) < 1e-5, name
    assert meter == (optimizer.exchange.meter.sent_bytes, optimizer.exchange.meter.collectives)
    # Training goes on as if nobody had asked.
    everyone = gradients(9)
    assert_close(exchange(optimizer, params, everyone[stock.rank()]), simulator.step(everyone)[stock.rank()], 1e-6)


@check()
def similarity_before_the_first_step_and_without_residuals() -> None:
    _, optimizer = _one_bucket(ScaleCom(5, min_size=8))
    assert all(one.cosine != one.cosine for one in optimizer.exchange.similarity().values())
    params, dense = _one_bucket(Identity())
    exchange(dense, params, gradients(0)[stock.rank()])
    assert dense.exchange.similarity() == {}


@check()
def similarity_while_gradients_are_on_their_way_raises() -> None:
    params, optimizer = _one_bucket(ScaleCom(5, min_size=8))
    exchange(optimizer, params, gradients(0)[stock.rank()])
    backward(params, gradients(1)[stock.rank()])
    with raises(UsageError, "after step()"):
        optimizer.exchange.similarity()
    optimizer.synchronize()
