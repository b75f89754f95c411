"""Horovod's own Compressor API, both ways: ours in the stock optimizer, stock and third-party ones in ours."""

from __future__ import annotations

from typing import Any

import horovod.torch as stock
import torch

import hvd_compress.torch as hvd
from hvd_compress import (
    AllReduce,
    Cast,
    ConfigurationError,
    ErrorFeedback,
    HorovodCompressor,
    Identity,
    LowRank,
    PowerSGD,
    Simulator,
    StockOptimizerError,
    TwoWay,
)

from .common import (
    assert_close,
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


class Doubled:
    """A compressor of a third party, written for Horovod's API: its payload is twice the gradient, in float64."""

    @staticmethod
    def compress(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.dtype]:
        return 2.0 * tensor.double(), tensor.dtype

    @staticmethod
    def decompress(tensor: torch.Tensor, ctx: torch.dtype) -> torch.Tensor:
        return (tensor / 2.0).to(ctx)


def _trained_by_stock(compression: Any, **options: Any) -> dict[str, torch.Tensor]:
    model = small_cnn()
    plain = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = stock.DistributedOptimizer(plain, model.named_parameters(), compression=compression, **options)
    train(model, optimizer, 5)
    return weights(model)


OURS = {
    "identity": (Identity(), stock.Compression.none),
    "identity-class": (Identity, stock.Compression.none),
    "fp16": (Cast("float16"), stock.Compression.fp16),
    "fp16-class": (Cast, stock.Compression.fp16),
}


@check(cases=OURS)
def codec_in_the_stock_optimizer(name: str) -> None:
    ours, theirs = OURS[name]
    # Both run the same operations on the same numbers; only the order of sums may differ, at 11 bits for fp16.
    tolerance = 1e-3 if "fp16" in name else 1e-5
    assert_close(_trained_by_stock(ours), _trained_by_stock(theirs), tolerance)


@check(min_ranks=2)
def a_cast_in_the_stock_optimizer_is_not_dense() -> None:
    """The comparison above would notice if a codec did nothing."""
    dense, cast = _trained_by_stock(Identity), _trained_by_stock(Cast)
    assert any(not torch.equal(dense[name], cast[name]) for name in dense)


@check(cases=["class", "instance"])
def codec_in_stock_groups(name: str) -> None:
    ours = Cast if name == "class" else Cast()
    assert_close(_trained_by_stock(ours, groups=2), _trained_by_stock(stock.Compression.fp16, groups=2), 1e-3)


@check(cases=["class", "instance"])
def codec_in_stock_functions(name: str) -> None:
    ours = Cast if name == "class" else Cast()
    own = gradients(0)[stock.rank()]["matrix"]
    found = stock.allreduce(own, name="ours", compression=ours)
    expected = stock.allreduce(own, name="theirs", compression=stock.Compression.fp16)
    assert found.dtype == own.dtype
    assert_close({"x": found}, {"x": expected}, 1e-3)


SEVERAL_ROUNDS = {
    "PowerSGD-class": PowerSGD,
    "PowerSGD": PowerSGD(rank=2),
    "LowRank": LowRank(),
    "ErrorFeedback": ErrorFeedback(Cast()),
    "TwoWay": TwoWay(Identity()),
    "AllReduce": AllReduce(Identity()),
}


@check(min_ranks=2, cases=SEVERAL_ROUNDS)
def operator_in_the_stock_optimizer_raises(name: str) -> None:
    with raises(StockOptimizerError, "import hvd_compress.torch as hvd"):
        _trained_by_stock(SEVERAL_ROUNDS[name])


@check(min_ranks=2)
def bfloat16_in_the_stock_optimizer_raises() -> None:
    """Its bits travel as int16, which Horovod refuses to add up."""
    with raises(ValueError, "ShortTensor"):
        _trained_by_stock(Cast("bfloat16"))


STOCK = {"none": hvd.Compression.none, "fp16": hvd.Compression.fp16}


@check(cases=STOCK)
def stock_compressor_in_ours(name: str) -> None:
    model = small_cnn()
    plain = torch.optim.SGD(model.parameters(), lr=0.1)
    train(
        model, hvd.DistributedOptimizer(plain, model.named_parameters(), compression=STOCK[name], allow_larger=True), 5
    )
    assert_close(weights(model), _trained_by_stock(STOCK[name]), 2e-3 if name == "fp16" else 1e-5)
    assert_equal_on_ranks(weights(model))


@check(cases=["class", "instance"])
def third_party_compressor_in_ours(name: str) -> None:
    given = Doubled if name == "class" else Doubled()
    params = parameters()
    optimizer = distributed(params, given)
    assert optimizer.compression == HorovodCompressor.of(given)
    simulator = Simulator(optimizer.compression, stock.size(), allow_larger=True)
    sent = 0
    for step in range(2):
        everyone = gradients(step)
        found = exchange(optimizer, params, everyone[stock.rank()])
        expected = simulator.step([dict(reversed(own.items())) for own in everyone])[stock.rank()]
        assert_close(found, {n: expected[n] for n in found})
        sent += optimizer.exchange.plan.wire_bytes(stock.size(), step)
    assert optimizer.exchange.meter.sent_bytes == sent
    compressed = [u for u in optimizer.exchange.plan.units if not u.dense]
    assert compressed and all(u.operator.traffic(u.spec, 2, 0)[0][0].dtype == "float64" for u in compressed)


@check()
def third_party_compressor_that_cannot_be_found_again() -> None:
    """Ranks compare compressors by where they are found; what cannot be named is refused."""

    class Local:
        @staticmethod
        def compress(tensor: torch.Tensor) -> tuple[torch.Tensor, None]:
            return tensor, None

        @staticmethod
        def decompress(tensor: torch.Tensor, ctx: None) -> torch.Tensor:
            return tensor

    with raises(ConfigurationError, "Local"):
        distributed(parameters(), Local)
