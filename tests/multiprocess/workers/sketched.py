"""Sketched-SGD over Horovod: what the simulator gives for the same gradients, and the same choice on every rank."""

from __future__ import annotations

import horovod.torch as stock
import torch

from hvd_compress import Simulator

from .common import assert_close, assert_equal_on_ranks, distributed, exchange, parameters
from .common import gradients as normal_gradients
from .families import SKETCHED as CASES
from .harness import check

STEPS = 5
# 1,880 elements travel in the sketch; each case leaves the choice clear, so that rounding does not turn it.
SHAPES: dict[str, tuple[int, ...]] = {"conv": (12, 8, 3, 3), "bias": (7,), "matrix": (34, 30), "small": (3, 2)}


def steep(step: int) -> list[dict[str, torch.Tensor]]:
    """Return every rank's gradients, of which few elements are large."""
    return [{name: x**5 for name, x in own.items()} for own in normal_gradients(step, SHAPES)]


@check(cases=CASES)
def sketched_equals_the_simulator(case: str) -> None:
    compressor, tolerance = CASES[case]
    params = parameters(SHAPES)
    optimizer = distributed(params, compressor, bucket_megabytes=1e6)
    # The driver plans last parameter first, as backward makes the gradients.
    simulator = Simulator(compressor, stock.size(), allow_larger=True)
    for step in range(STEPS):
        everyone = steep(step)
        found = exchange(optimizer, params, everyone[stock.rank()])
        expected = simulator.step([dict(reversed(own.items())) for own in everyone])[stock.rank()]
        assert_close(found, {name: expected[name] for name in found}, tolerance)
        assert_equal_on_ranks(found)
        assert sum(int(torch.count_nonzero(found[name])) for name in ("conv", "matrix")) == 20
    assert optimizer.exchange.plan.units == simulator.plan.units
    assert optimizer.exchange.meter.sent_bytes == simulator.sent_bytes


@check(min_ranks=2)
def sketched_bytes_are_as_planned() -> None:
    params = parameters(SHAPES)
    optimizer = distributed(params, CASES["default"][0], bucket_megabytes=1e6)
    meter = optimizer.exchange.meter
    exchange(optimizer, params, steep(0)[stock.rank()])
    sent, started = meter.sent_bytes, meter.collectives
    exchange(optimizer, params, steep(1)[stock.rank()])
    numbers = 5 * 150 + 8 * 20 + 24 + 7 + 6
    share = 2 * (stock.size() - 1) / stock.size()
    assert abs(meter.sent_bytes - sent - share * 4 * numbers) <= 5
    assert meter.collectives - started == 2
