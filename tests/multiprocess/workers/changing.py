"""`optimizer.compression = X` and `change_compression` during training, over real collectives."""

from __future__ import annotations

from typing import Any

import horovod.torch as stock
import torch

import hvd_compress.torch as hvd
from hvd_compress import (
    AllGather,
    Cast,
    ConfigurationError,
    ErrorFeedback,
    Identity,
    Joined,
    LowRank,
    Momentum,
    PowerSGD,
    RankDisagreementError,
    Schedule,
    Simulator,
    UsageError,
)

from .common import (
    assert_close,
    assert_equal_on_ranks,
    assert_same_bits,
    backward,
    distributed,
    exchange,
    gradients,
    mean_of,
    parameters,
    raises,
    small_cnn,
    train,
    weights,
)
from .harness import check

ONE_BUCKET = 1e6
WHOLE = Joined(ErrorFeedback(AllGather(Cast())), float("inf"))
AFTER = {"powersgd": PowerSGD(rank=1), "joined": WHOLE, "identity": Identity(), "fp16": "fp16", "class": PowerSGD}


def _own(step: int) -> dict[str, torch.Tensor]:
    return gradients(step)[stock.rank()]


def _simulated(before: Any, after: Any, residual: Any = "keep") -> list[dict[str, torch.Tensor]]:
    """Return what workers in one process apply: three steps, a change, three steps."""
    # Parameters are exchanged last first.
    turned = [[dict(reversed(own.items())) for own in gradients(step)] for step in range(6)]
    simulator = Simulator(before, stock.size(), allow_larger=True)
    means = [simulator.step(own)[0] for own in turned[:3]]
    simulator.change_compression(after, residual)
    return [*means, *(simulator.step(own)[0] for own in turned[3:])]


@check(cases=[f"{name}-{how}" for name in AFTER for how in ("overlap", "no-overlap")])
def assigning_between_steps(case: str) -> None:
    name, _, how = case.partition("-")
    params = parameters()
    optimizer = distributed(params, PowerSGD(rank=2), overlap=how == "overlap", allow_larger=True)
    found = [exchange(optimizer, params, _own(step)) for step in range(3)]
    optimizer.compression = AFTER[name]
    found += [exchange(optimizer, params, _own(step)) for step in range(3, 6)]
    for means, expected in zip(found, _simulated(PowerSGD(rank=2), AFTER[name]), strict=True):
        assert_close(means, expected, 1e-4 if name != "fp16" else 4e-3)
        assert_equal_on_ranks(means)
    assert optimizer.exchange.step == 6
    assert optimizer.exchange.plan.compressor == optimizer.compression


@check(cases=["keep", "flush", "drop"])
def residuals_at_a_change(residual: str) -> None:
    params = parameters()
    optimizer = distributed(params, WHOLE, allow_larger=True)
    found = [exchange(optimizer, params, _own(step)) for step in range(3)]
    optimizer.exchange.change_compression(PowerSGD(rank=1), residual)  # type: ignore[arg-type]
    found += [exchange(optimizer, params, _own(step)) for step in range(3, 6)]
    for means, expected in zip(found, _simulated(WHOLE, PowerSGD(rank=1), residual), strict=True):
        assert_close(means, expected, 2e-3)  # float16 payloads may round the other way
        assert_equal_on_ranks(means)
    if residual == "flush":
        total = {name: sum(means[name].double() for means in found[:4]) for name in params}
        expected_total = [mean_of(gradients(step)) for step in range(4)]
        assert_close(total, {name: sum(m[name] for m in expected_total) for name in params}, 1e-5)


@check()
def assigning_an_equal_compressor_changes_nothing() -> None:
    runs = []
    for assigns in (False, True):
        params = parameters()
        optimizer = distributed(params, PowerSGD(rank=2), bucket_megabytes=ONE_BUCKET)
        for step in range(4):
            if assigns:
                optimizer.compression = PowerSGD(rank=2)
            means = exchange(optimizer, params, _own(step))
        runs.append(means)
    assert_same_bits(*runs)


@check(cases=["overlap", "no-overlap"])
def training_with_schedulers(how: str) -> None:
    """A schedule by hand, beside a scheduler of learning rates, is the `Schedule` of the same compressors."""
    phases = {0: ErrorFeedback(Cast()), 3: PowerSGD(rank=2)}
    ends = []
    for by_hand in (False, True):
        model = small_cnn()
        params = dict(model.named_parameters())
        compression = phases[0] if by_hand else Schedule(phases)
        optimizer = distributed(params, compression, overlap=how == "overlap", bucket_megabytes=ONE_BUCKET)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
        for step in range(6):
            if by_hand and step in phases:
                optimizer.compression = phases[step]
            train(model, optimizer, 1, first=step)
            scheduler.step()
        assert_equal_on_ranks(weights(model))
        ends.append(weights(model))
    # By hand, what float16 lost of a bias goes into the next gradient; in a schedule it waits for a phase with memory.
    assert_close(ends[1], ends[0], 2e-5)


@check(min_ranks=2, cases=["compressor", "residual"])
def ranks_that_disagree_are_told(what: str) -> None:
    params = parameters()
    optimizer = distributed(params, PowerSGD(rank=2))
    exchange(optimizer, params, _own(0))
    first = stock.rank() == 0
    compressor = PowerSGD(rank=3 if first and what == "compressor" else 1)
    residual: Any = "drop" if first and what == "residual" else "keep"
    with raises(RankDisagreementError, "Ranks 0 and 1"):
        optimizer.exchange.change_compression(compressor, residual)
    # Nothing has changed: ranks go on together.
    assert optimizer.compression == optimizer.exchange.plan.compressor == PowerSGD(rank=2)
    assert_equal_on_ranks(exchange(optimizer, params, _own(1)))
    optimizer.exchange.change_compression(PowerSGD(rank=1))
    assert_equal_on_ranks(exchange(optimizer, params, _own(2)))


@check(min_ranks=2)
def ranks_that_assign_different_things_are_told() -> None:
    params = parameters()
    optimizer = distributed(params, PowerSGD(rank=2))
    exchange(optimizer, params, _own(0))
    optimizer.compression = PowerSGD(rank=2) if stock.rank() else LowRank()  # equal to what it is, and not
    backward(params, _own(1))
    with raises(RankDisagreementError, "Ranks 0 and 1"):
        optimizer.synchronize()
    optimizer.compression = PowerSGD(rank=2)
    optimizer.synchronize()
    assert_equal_on_ranks({name: p.grad for name, p in params.items() if p.grad is not None})


@check()
def not_while_gradients_are_on_their_way() -> None:
    params = parameters()
    optimizer = distributed(params, PowerSGD(rank=2))
    exchange(optimizer, params, _own(0))
    backward(params, _own(1))
    with raises(UsageError, "after step()"):
        optimizer.exchange.change_compression(Identity())
    optimizer.compression = Identity()
    with raises(UsageError, "after step()"):
        optimizer.synchronize()
    optimizer.compression = PowerSGD(rank=2)
    optimizer.synchronize()
    optimizer.zero_grad()
    optimizer.compression = Identity()
    exchange(optimizer, params, _own(2))  # what was owed comes with it
    assert_close(exchange(optimizer, params, _own(3)), mean_of(gradients(3)))


@check()
def what_cannot_be_used_changes_nothing() -> None:
    params = parameters()
    plain = torch.optim.SGD(list(params.values()), lr=0.1, momentum=0.9)
    optimizer = hvd.DistributedOptimizer(plain, params.items(), compression=PowerSGD(rank=2), allow_larger=True)
    exchange(optimizer, params, _own(0))
    with raises(ConfigurationError, "momentum"):
        optimizer.exchange.change_compression(Momentum(Cast()))
    with raises(ConfigurationError, "residual='lose'"):
        optimizer.exchange.change_compression(Identity(), "lose")
    assert optimizer.compression == optimizer.exchange.plan.compressor == PowerSGD(rank=2)
    assert_equal_on_ranks(exchange(optimizer, params, _own(1)))


@check(cases=["keep", "flush"])
def saved_between_the_change_and_the_next_step(residual: str) -> None:
    params = parameters()
    optimizer = distributed(params, PowerSGD(rank=1), bucket_megabytes=ONE_BUCKET)
    for step in range(2):
        exchange(optimizer, params, _own(step))
    optimizer.exchange.change_compression(PowerSGD(rank=2), residual)  # type: ignore[arg-type]
    saved = optimizer.exchange.state_dict()
    expected = [exchange(optimizer, params, _own(step)) for step in (2, 3)]
    fresh_params = parameters()
    fresh = distributed(fresh_params, PowerSGD(rank=2), bucket_megabytes=ONE_BUCKET)
    fresh.exchange.load_state_dict(saved)
    for step, right in zip((2, 3), expected, strict=True):
        assert_same_bits(exchange(fresh, fresh_params, _own(step)), right)
