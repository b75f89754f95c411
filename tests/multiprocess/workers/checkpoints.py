"""Compression state saved and loaded per rank: going on equals never having stopped."""

from __future__ import annotations

import io
from typing import Any

import horovod.torch as stock
import torch

from hvd_compress import Cast, ConfigurationError, ErrorFeedback, Identity, PowerSGD, UsageError
from hvd_compress.contract import walk

from .common import assert_same_bits, backward, distributed, exchange, gathered, gradients, parameters, raises
from .harness import check

COMPRESSORS: dict[str, Any] = {
    "powersgd": PowerSGD(rank=2),
    "alternate": PowerSGD(rank=2, alternate=True),
    "cold": PowerSGD(rank=2, warm_start=False),
    "later": PowerSGD(rank=2, start_after=4),
    "fp16": Cast(),
    "feedback-bf16": ErrorFeedback(Cast("bfloat16")),
    "identity": Identity(),
}
ONE_BUCKET = 1e6  # one collective at a time: the order of sums does not depend on timing


def _own(step: int) -> dict[str, torch.Tensor]:
    return gradients(step)[stock.rank()]


def _through_a_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@check(cases=COMPRESSORS)
def continuing_equals_uninterrupted(name: str) -> None:
    params = parameters()
    optimizer = distributed(params, COMPRESSORS[name], bucket_megabytes=ONE_BUCKET)
    for step in range(3):
        exchange(optimizer, params, _own(step))
    saved = _through_a_file(optimizer.exchange.state_dict())
    expected = [exchange(optimizer, params, _own(step)) for step in range(3, 6)]

    fresh_params = parameters()
    fresh = distributed(fresh_params, COMPRESSORS[name], bucket_megabytes=ONE_BUCKET)
    exchange(fresh, fresh_params, _own(77))  # what it held before must be forgotten
    fresh.exchange.load_state_dict(saved)
    for step, right in enumerate(expected, start=3):
        assert_same_bits(exchange(fresh, fresh_params, _own(step)), right)
    _assert_same_leaves(fresh.exchange.state_dict(), optimizer.exchange.state_dict())
    assert fresh.exchange.state_dict()["step"] == 6


def _assert_same_leaves(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert_same_bits(dict(_leaves(found)), dict(_leaves(expected)))


def _leaves(state: dict[str, Any]) -> list[tuple[str, torch.Tensor]]:
    return [(path, leaf) for path, leaf in walk({"units": state["units"]}) if isinstance(leaf, torch.Tensor)]


@check()
def a_saved_state_does_not_change_with_training() -> None:
    params = parameters()
    optimizer = distributed(params, PowerSGD(rank=2))
    exchange(optimizer, params, _own(0))
    saved = optimizer.exchange.state_dict()
    copies = [(path, leaf.clone()) for path, leaf in _leaves(saved)]
    assert any("error" in path for path, _ in copies)
    for step in range(1, 4):
        exchange(optimizer, params, _own(step))
    assert_same_bits(dict(_leaves(saved)), dict(copies))


@check()
def a_loaded_state_can_be_saved_before_the_next_step() -> None:
    params = parameters()
    optimizer = distributed(params, PowerSGD(rank=2))
    for step in range(2):
        exchange(optimizer, params, _own(step))
    saved = optimizer.exchange.state_dict()
    fresh = distributed(parameters(), PowerSGD(rank=2))
    fresh.exchange.load_state_dict(_through_a_file(saved))
    _assert_same_leaves(fresh.exchange.state_dict(), saved)


@check()
def a_loaded_state_is_not_written_to() -> None:
    params = parameters()
    optimizer = distributed(params, PowerSGD(rank=2))
    exchange(optimizer, params, _own(0))
    saved = _through_a_file(optimizer.exchange.state_dict())
    copies = [(path, leaf.clone()) for path, leaf in _leaves(saved)]
    optimizer.exchange.load_state_dict(saved)
    for step in range(1, 4):
        exchange(optimizer, params, _own(step))
    assert_same_bits(dict(_leaves(saved)), dict(copies))


@check()
def states_that_do_not_fit_are_refused() -> None:
    params = parameters()
    optimizer = distributed(params, PowerSGD(rank=2))
    exchange(optimizer, params, _own(0))
    saved = optimizer.exchange.state_dict()
    other = distributed(parameters(), PowerSGD(rank=3))
    with raises(ConfigurationError, "compressor", "rank=2", "rank=3"):
        other.exchange.load_state_dict(saved)
    with raises(ConfigurationError, "world_size", str(stock.size() + 1)):
        optimizer.exchange.load_state_dict({**saved, "world_size": stock.size() + 1})
    with raises(ConfigurationError, "rank", str(stock.rank() + 1)):
        optimizer.exchange.load_state_dict({**saved, "rank": stock.rank() + 1})
    with raises(ConfigurationError, "version"):
        optimizer.exchange.load_state_dict({**saved, "version": 0})
    smaller = parameters({"matrix": (24, 17)})
    with raises(ConfigurationError, "[24, 17]", "[24, 18]"):
        distributed(smaller, PowerSGD(rank=2)).exchange.load_state_dict(
            {**saved, "units": {"matrix": saved["units"]["matrix"]}}
        )
    # A refusal leaves what there was.
    _assert_same_leaves(optimizer.exchange.state_dict(), saved)


@check(min_ranks=2)
def the_state_of_another_rank_is_refused() -> None:
    params = parameters()
    optimizer = distributed(params, PowerSGD(rank=2))
    exchange(optimizer, params, _own(0))
    everyone = gathered(optimizer.exchange.state_dict(), "states")
    neighbour = everyone[(stock.rank() + 1) % stock.size()]
    with raises(ConfigurationError, "rank"):
        optimizer.exchange.load_state_dict(neighbour)


@check()
def loading_between_backward_and_step_raises() -> None:
    params = parameters()
    optimizer = distributed(params, PowerSGD(rank=2))
    exchange(optimizer, params, _own(0))
    saved = optimizer.exchange.state_dict()
    backward(params, _own(1))
    with raises(UsageError, "between backward() and step()"):
        optimizer.exchange.load_state_dict(saved)
    optimizer.synchronize()


@check(min_ranks=2)
def replicated_state_is_equal_on_ranks_and_local_state_is_not() -> None:
    params = parameters()
    optimizer = distributed(params, PowerSGD(rank=2))
    for step in range(3):
        exchange(optimizer, params, _own(step))
    everyone = gathered(dict(_leaves(optimizer.exchange.state_dict())), "leaves")
    for path, leaf in everyone[0].items():
        same = all(torch.equal(leaf, other[path]) for other in everyone[1:])
        assert same == (not path.endswith("error")), path
    assert any(path.endswith("error") for path in everyone[0]) and any(path.endswith(".q") for path in everyone[0])
