"""Singular triplets, learnt bases and random projections over Horovod: what the simulator gives, and planned bytes."""

from __future__ import annotations

import horovod.torch as stock

from .common import check_against_the_simulator, counted_collectives, distributed, exchange, gradients, parameters
from .families import SPECTRAL as CASES
from .harness import check

# Bases are learnt anew after three or four steps: both kinds of steps come twice.
STEPS = 7
# Singular vectors of float32: two libraries' sums in another order turn them by more than a rounding.
TOLERANCE = 1e-4


@check(cases=CASES)
def equals_the_simulator(case: str) -> None:
    check_against_the_simulator(CASES[case], STEPS, TOLERANCE)


@check(cases=CASES)
def bytes_are_as_planned(case: str) -> None:
    params = parameters()
    optimizer = distributed(params, CASES[case])
    exchange(optimizer, params, gradients(0)[stock.rank()])  # the first step also compares replicas and plans
    plan = optimizer.exchange.plan
    for step in range(1, STEPS):
        sent = optimizer.exchange.meter.sent_bytes
        with counted_collectives() as counts:
            exchange(optimizer, params, gradients(step)[stock.rank()])
        assert optimizer.exchange.meter.sent_bytes - sent == plan.wire_bytes(stock.size(), step)
        traffic = [unit.operator.traffic(unit.spec, stock.size(), step) for unit in plan.units]
        handed = sum(payload.nbytes for rounds in traffic for payloads in rounds for payload in payloads)
        assert counts["bytes"] == (0 if stock.size() == 1 else handed)
