"""Quantised gradients over Horovod: maxima, packed integers that are added up, and bits in both directions."""

from __future__ import annotations

import horovod.torch as stock
import torch

from hvd_compress import SharedScale, Simulator

from .common import SHAPES, assert_equal_on_ranks, assert_same_bits, distributed, exchange, gradients, parameters
from .families import QUANTISED as CASES
from .harness import check

STEPS = 3


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
