"""Quantised gradients over Horovod: maxima, packed integers that are added up, and bits in both directions."""

from __future__ import annotations

from typing import Any

import horovod.torch as stock
import torch

from hvd_compress import (
    QSGD,
    AllGather,
    ErrorFeedback,
    Natural,
    QuantizedCompressiveSampling,
    SharedScale,
    Simulator,
    TernGrad,
    TwoWay,
)

from .common import SHAPES, assert_equal_on_ranks, assert_same_bits, distributed, exchange, gradients, parameters
from .harness import check

STEPS = 3
# Maxima and integer sums know no rounding, and what is gathered is added up in rank order: every bit is the same.
CASES: dict[str, Any] = {
    "shared-scale": SharedScale(levels=7, bucket=50),
    "shared-ternary": SharedScale(levels=1, bucket=0, clip=2.5),
    "shared-feedback": ErrorFeedback(SharedScale(levels=127)),
    "qsgd-two-way": TwoWay(QSGD(bucket=50)),
    "qsgd-gathered": AllGather(QSGD(levels=2, norm="max")),
    "terngrad": ErrorFeedback(TwoWay(TernGrad(), server_feedback=True)),
    "natural": TwoWay(Natural()),
    "compressive-sampling": QuantizedCompressiveSampling(block=64),
}


@check(cases=CASES)
def equals_the_simulator(case: str) -> None:
    params = parameters()
    optimizer = distributed(params, CASES[case], allow_larger=True)
    simulator = Simulator(CASES[case], stock.size(), allow_larger=True)
    for step in range(STEPS):
        everyone = gradients(step)
        found = exchange(optimizer, params, everyone[stock.rank()])
        expected = simulator.step([dict(reversed(own.items())) for own in everyone])[stock.rank()]
        assert_same_bits(found, {name: expected[name] for name in SHAPES})
    assert_equal_on_ranks(found)
    assert optimizer.exchange.meter.sent_bytes == simulator.sent_bytes


@check(min_ranks=2, cases=["inf", "-inf", "nan"])
def every_rank_sees_what_is_not_finite_on_one(poison: str) -> None:
    """A maximum over ranks may pass over a NaN."""
    for rank in range(stock.size()):
        params = parameters({"a": (40,), "b": (40,)})
        optimizer = distributed(params, SharedScale(bucket=10), allow_larger=True)
        own = gradients(0, {"a": (40,), "b": (40,)})[stock.rank()]
        if stock.rank() == rank:
            own["a"][13] = float(poison)
        found = exchange(optimizer, params, own)
        assert not torch.isfinite(found["a"][10:20]).any()
        assert torch.isfinite(found["a"][:10]).all() and torch.isfinite(found["b"]).all()
