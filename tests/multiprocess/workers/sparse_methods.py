"""Sparse methods over Horovod: pairs of ranks, allgathers of positions, and shared positions, as in the simulator."""

from __future__ import annotations

from typing import Any

import horovod.torch as stock
import torch

from hvd_compress import Simulator

from .common import (
    SHAPES,
    assert_close,
    assert_equal_on_ranks,
    check_against_the_simulator,
    distributed,
    exchange,
    gradients,
    parameters,
)
from .families import SPARSE as CASES
from .harness import check

STEPS = 5


def _distributed(compressor: Any, **options: Any) -> tuple[Any, Any]:
    params = parameters()
    return params, distributed(params, compressor, allow_larger=True, **options)


@check(cases=CASES)
def equals_the_simulator(case: str) -> None:
    check_against_the_simulator(CASES[case], STEPS, 1e-6)


@check(cases=CASES)
def bytes_are_as_planned(case: str) -> None:
    params, optimizer = _distributed(CASES[case])
    for step in range(STEPS):
        sent = optimizer.exchange.meter.sent_bytes
        exchange(optimizer, params, gradients(step)[stock.rank()])
        assert optimizer.exchange.meter.sent_bytes - sent == optimizer.exchange.plan.wire_bytes(stock.size(), step)


@check(cases=["gtopk", "dgc"])
def any_order_of_gradients_in_small_buckets(case: str) -> None:
    """Rounds of several buckets are under way at once, and each rank's gradients come in an order of their own."""
    params, optimizer = _distributed(CASES[case], bucket_megabytes=500e-6)
    simulator = Simulator(CASES[case], stock.size(), allow_larger=True)
    names = list(SHAPES)
    for step in range(STEPS):
        everyone, start = gradients(step), (step + 3 * stock.rank()) % len(names)
        found = exchange(optimizer, params, everyone[stock.rank()], names[start:] + names[:start])
        expected = simulator.step([dict(reversed(own.items())) for own in everyone])[stock.rank()]
        assert_close(found, {name: expected[name] for name in found}, 1e-6)
        assert_equal_on_ranks(found)


@check(min_ranks=2, cases=["gtopk", "dgc", "memsgd-random", "adacomp"])
def a_number_that_is_not_finite_on_one_rank_is_seen_by_all(case: str) -> None:
    params, optimizer = _distributed(CASES[case])
    for step in range(4):
        own = gradients(step)[stock.rank()]
        if step == 1 and stock.rank() == stock.size() - 1:
            own["matrix"][0, 0] = float("nan")
        found = exchange(optimizer, params, own)
        assert bool(torch.isfinite(found["matrix"]).all()) is (step != 1), step
        assert torch.isfinite(found["conv"]).all()
