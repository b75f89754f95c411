"""Sparse gradients, as of `nn.Embedding(sparse=True)`."""

from __future__ import annotations

from typing import Any

import horovod.torch as stock
import torch
from torch import nn

import hvd_compress.torch as hvd
from hvd_compress import ByName, Cast, Identity, Joined, PowerSGD, UsageError

from .common import assert_close, assert_equal_on_ranks, raises
from .harness import check

ROWS, WIDTH = 9, 4


class Words(nn.Module):
    """An embedding with sparse gradients, and a dense layer."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.table = nn.Embedding(ROWS, WIDTH, sparse=True, dtype=dtype)
        self.head = nn.Linear(WIDTH, 3, dtype=dtype)

    def loss(self, words: list[int]) -> torch.Tensor:
        """Return a loss that does not touch the table where there are no words."""
        if not words:
            return self.head(torch.ones(1, WIDTH, dtype=self.head.weight.dtype)).square().mean()
        return self.head(self.table(torch.tensor(words))).square().mean()


def _words(seed: int = 0) -> Words:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Words()


def _batch(step: int, rank: int) -> list[int]:
    """Return words, some of them twice; none at all for one rank at every third step, and for all at step 4."""
    if step == 4 or (step % 3 == 2 and rank == 0 and stock.size() > 1):
        return []
    return [(3 * step + rank) % ROWS, (step + 2 * rank + 1) % ROWS, (step + 1) % ROWS, (step + 1) % ROWS]


def _optimizers(model: Words, kind: str) -> list[torch.optim.Optimizer]:
    if kind == "sgd":
        return [torch.optim.SGD(model.parameters(), lr=0.5)]
    return [
        torch.optim.SparseAdam(list(model.table.parameters()), lr=0.1),
        torch.optim.SGD(model.head.parameters(), 0.5),
    ]


def _expected(kind: str, steps: int) -> dict[str, torch.Tensor]:
    """Train in this process alone on the mean of all ranks' losses."""
    model = _words()
    optimizers = _optimizers(model, kind)
    for step in range(steps):
        for optimizer in optimizers:
            optimizer.zero_grad()
        losses = [model.loss(_batch(step, rank)) for rank in range(stock.size())]
        torch.stack(losses).mean().backward()
        for optimizer in optimizers:
            optimizer.step()
    return {name: p.detach() for name, p in model.named_parameters()}


def _distributed(model: Words, kind: str, **options: Any) -> list[Any]:
    return [
        hvd.DistributedOptimizer(o, model.named_parameters(), allow_larger=True, **options)
        for o in _optimizers(model, kind)
    ]


def _train(kind: str, steps: int, **options: Any) -> tuple[dict[str, torch.Tensor], list[Any]]:
    model = _words()
    optimizers = _distributed(model, kind, **options)
    for step in range(steps):
        for optimizer in optimizers:
            optimizer.zero_grad()
        model.loss(_batch(step, stock.rank())).backward()
        for optimizer in optimizers:
            optimizer.step()
    return {name: p.detach() for name, p in model.named_parameters()}, optimizers


# SparseAdam divides by the root of small second moments, which grows float64 rounding.
TOLERANCE = {"sgd": 1e-12, "sparse-adam": 1e-9}


@check(cases=[f"{kind}-{how}" for kind in ("sgd", "sparse-adam") for how in ("gathered", "as-dense")])
def every_rank_has_words(case: str) -> None:
    kind, how = case.removesuffix("-gathered").removesuffix("-as-dense"), case.endswith("as-dense")
    found, _ = _train(kind, 2, sparse_as_dense=how)
    assert_close(found, _expected(kind, 2), TOLERANCE[kind])
    assert_equal_on_ranks(found)


@check(cases=[f"{kind}-{how}" for kind in ("sgd", "sparse-adam") for how in ("gathered", "as-dense")])
def a_rank_without_words(case: str) -> None:
    """Stock Horovod stalls here: a rank without a gradient cannot know that the others' is sparse."""
    kind, how = case.removesuffix("-gathered").removesuffix("-as-dense"), case.endswith("as-dense")
    # The step at which no rank has words counts for SparseAdam's bias correction only if there is a gradient at all.
    steps = 6 if kind == "sgd" else 4
    found, _ = _train(kind, steps, sparse_as_dense=how)
    assert_close(found, _expected(kind, steps), TOLERANCE[kind])
    assert_equal_on_ranks(found)


@check(min_ranks=2, cases=["gathered", "as-dense"])
def a_rank_without_words_at_the_first_step(how: str) -> None:
    model = _words()
    (optimizer,) = _distributed(model, "sgd", sparse_as_dense=how == "as-dense")
    reference = _words()
    plain = torch.optim.SGD(reference.parameters(), lr=0.5)
    for step in range(2):
        optimizer.zero_grad()
        plain.zero_grad()
        everyone = [[] if step == 0 and rank == stock.size() - 1 else [rank, 5] for rank in range(stock.size())]
        model.loss(everyone[stock.rank()]).backward()
        torch.stack([reference.loss(words) for words in everyone]).mean().backward()
        optimizer.step()
        plain.step()
    assert_close(dict(model.named_parameters()), dict(reference.named_parameters()), 1e-12)


@check(cases=["PowerSGD", "fp16", "bf16"])
def sparse_as_dense_is_compressed(name: str) -> None:
    compressor = {"PowerSGD": PowerSGD(rank=10**6, min_saving=0), "fp16": Cast(), "bf16": Cast("bfloat16")}[name]
    found, (optimizer,) = _train("sgd", 5, compression=compressor, sparse_as_dense=True)
    unit = next(u for u in optimizer.exchange.plan.units if u.name == "table.weight")
    assert not unit.dense
    # 11 and 8 bits of every gradient, over five steps.
    assert_close(found, _expected("sgd", 5), {"PowerSGD": 1e-9, "fp16": 5e-3, "bf16": 4e-2}[name])
    assert_equal_on_ranks(found)


@check()
def gathered_gradients_stay_sparse_and_uncompressed() -> None:
    found, (optimizer,) = _train("sgd", 4, compression=PowerSGD(rank=1, min_saving=0))
    assert [u.name for u in optimizer.exchange.plan.units if "table" in u.name] == []
    assert next(iter(optimizer.param_groups[0]["params"])).grad.is_sparse
    assert_equal_on_ranks(found)


@check(cases=["joined", "by-name"])
def sparse_gradients_stay_out_of_joined_units(case: str) -> None:
    whole = Joined(Identity(), float("inf"))
    compressor = whole if case == "joined" else ByName({"table.*": PowerSGD(rank=1, min_saving=0)}, whole)
    found, (optimizer,) = _train("sgd", 4, compression=compressor)
    (unit,) = optimizer.exchange.plan.units
    assert sorted(name for name, _ in unit.parameters) == ["head.bias", "head.weight"]
    assert next(iter(optimizer.param_groups[0]["params"])).grad.is_sparse
    assert_close(found, _expected("sgd", 4), TOLERANCE["sgd"])
    found, (optimizer,) = _train("sgd", 4, compression=whole, sparse_as_dense=True)
    (unit,) = optimizer.exchange.plan.units
    assert "table.weight" in dict(unit.parameters)
    assert_close(found, _expected("sgd", 4), TOLERANCE["sgd"])


@check(min_ranks=2)
def equals_stock_where_stock_works() -> None:
    results = []
    for framework in (stock, hvd):
        model = _words()
        optimizer = framework.DistributedOptimizer(
            torch.optim.SGD(model.parameters(), lr=0.5), model.named_parameters()
        )
        for step in range(2):
            optimizer.zero_grad()
            model.loss([stock.rank(), step, 7]).backward()
            optimizer.step()
        results.append({name: p.detach() for name, p in model.named_parameters()})
    assert_close(results[1], results[0], 1e-12)


@check(cases=["gathered", "as-dense"])
def op_sum(how: str) -> None:
    model, reference = _words(), _words()
    (optimizer,) = _distributed(model, "sgd", sparse_as_dense=how == "as-dense", op=hvd.Sum)
    plain = torch.optim.SGD(reference.parameters(), lr=0.5)
    model.loss(_batch(0, stock.rank())).backward()
    sum(reference.loss(_batch(0, rank)) for rank in range(stock.size())).backward()
    optimizer.step()
    plain.step()
    assert_close(dict(model.named_parameters()), dict(reference.named_parameters()), 1e-12)


@check()
def becoming_sparse_later_raises() -> None:
    weight = nn.Parameter(torch.ones(ROWS, WIDTH))
    optimizer = hvd.DistributedOptimizer(torch.optim.SGD([weight], lr=0.5), [("weight", weight)], allow_larger=True)
    weight.square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    with raises(UsageError, "'weight'", "sparse_as_dense=True"):
        nn.functional.embedding(torch.tensor([1, 2]), weight, sparse=True).sum().backward()
        optimizer.step()


@check()
def the_state_of_a_sparse_model_can_be_loaded() -> None:
    _, (optimizer,) = _train("sgd", 3, compression=PowerSGD(rank=1, min_saving=0))
    saved = optimizer.exchange.state_dict()
    assert saved["sparse"]["gathered"] == ["table.weight"]
    model = _words(3)
    (fresh,) = _distributed(model, "sgd", compression=PowerSGD(rank=1, min_saving=0))
    fresh.exchange.load_state_dict(saved)
    for step in range(3, 6):
        fresh.zero_grad()
        model.loss(_batch(step, stock.rank())).backward()
        fresh.step()
    assert fresh.exchange.meter.steps == 3
    assert_equal_on_ranks({name: p.detach() for name, p in model.named_parameters()})


@check()
def without_compression_identity_is_exact() -> None:
    found, _ = _train("sgd", 5, compression=Identity)
    assert_close(found, _expected("sgd", 5), 1e-12)
