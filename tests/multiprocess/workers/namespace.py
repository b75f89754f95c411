"""Everything that horovod.torch is, and what must not be touched: random streams, memory."""

from __future__ import annotations

import gc
import random
from typing import Any

import horovod.torch as stock
import numpy as np
import torch
from torch import nn

import hvd_compress.torch as hvd
from hvd_compress import Cast, ConfigurationError, Identity, PowerSGD, Simulator, SketchedSGD, TwoWay
from hvd_compress.contract import walk

from .common import (
    assert_close,
    assert_equal_on_ranks,
    backward,
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

OURS = {"DistributedOptimizer", "broadcast_optimizer_state", "join"}


@check()
def has_every_public_name_of_stock() -> None:
    public = {name for name in dir(stock) if not name.startswith("_")}
    assert {"allreduce", "Compression", "SyncBatchNorm", "elastic", "ProcessSet", "broadcast_object"} <= public
    assert public <= set(dir(hvd))
    assert public <= set(hvd.__all__)
    star: dict[str, Any] = {}
    exec("from hvd_compress.torch import *", star)
    for name in public:
        assert (getattr(hvd, name) is getattr(stock, name)) == (name not in OURS), name
        assert star[name] is getattr(hvd, name), name


@check()
def an_unknown_name_is_an_attribute_error() -> None:
    with raises(AttributeError, "'no_such_name'"):
        _ = hvd.no_such_name


@check()
def functions_of_the_namespace_work() -> None:
    mean = hvd.allreduce(torch.tensor([float(hvd.rank())]), name="namespace.mean")
    assert abs(mean.item() - (hvd.size() - 1) / 2) < 1e-6
    assert hvd.allgather(torch.tensor([hvd.rank()]), name="namespace.all").tolist() == list(range(hvd.size()))
    assert hvd.broadcast_object(hvd.rank(), root_rank=hvd.size() - 1, name="namespace.object") == hvd.size() - 1


@check(cases=["PowerSGD", "Identity"])
def broadcast_optimizer_state_when_only_one_rank_has_state(name: str) -> None:
    """Rank 0 resumed; the others take a step to make room for state, which must not be waited for by rank 0."""
    model = small_cnn()
    plain = torch.optim.Adam(model.parameters(), lr=0.01 * (1 + stock.rank()))
    if stock.rank() == 0:
        for _ in range(2):
            for p in model.parameters():
                p.grad = torch.full_like(p, 0.5)
            plain.step()
        plain.zero_grad()
    compression = {"PowerSGD": PowerSGD, "Identity": Identity}[name]
    optimizer = hvd.DistributedOptimizer(plain, model.named_parameters(), compression=compression, allow_larger=True)
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    hvd.broadcast_optimizer_state(optimizer, root_rank=0)
    assert optimizer.exchange.meter.steps == 0
    state = {f"{i}.{k}": v for i, s in optimizer.state_dict()["state"].items() for k, v in s.items()}
    assert {v.item() for k, v in state.items() if k.endswith(".step")} == {2.0}
    assert all((v != 0).all() for k, v in state.items() if k.endswith(".exp_avg"))
    assert optimizer.param_groups[0]["lr"] == 0.01
    assert_equal_on_ranks(state)
    train(model, optimizer, 2)
    assert optimizer.exchange.meter.steps == 2
    assert_equal_on_ranks(weights(model))


@check()
def broadcast_of_a_new_optimizer_and_of_a_plain_one() -> None:
    for wrap in (True, False):
        model = small_cnn()
        optimizer: Any = torch.optim.SGD(model.parameters(), lr=0.1 + stock.rank(), momentum=0.9)
        if wrap:
            optimizer = hvd.DistributedOptimizer(
                optimizer, model.named_parameters(), compression=PowerSGD, allow_larger=True
            )
        before = weights(model)
        hvd.broadcast_optimizer_state(optimizer, root_rank=0)
        assert optimizer.param_groups[0]["lr"] == 0.1
        assert all(torch.equal(x, before[name]) for name, x in weights(model).items())


def _join_after(steps: int, compressor: Any) -> tuple[list[dict[str, torch.Tensor]], int]:
    params = parameters()
    optimizer = distributed(params, compressor)
    own = steps + (1 if stock.rank() == 0 else 0)
    means = [exchange(optimizer, params, gradients(step)[stock.rank()]) for step in range(own)]
    gc.collect()  # of optimizers of earlier checks
    return means, hvd.join()


@check(min_ranks=2, cases=["PowerSGD", "Identity", "fp16"])
def join_with_one_batch_more_on_rank_0(name: str) -> None:
    """A rank that has joined counts as one with zeros in every allreduce."""
    full_rank = PowerSGD(rank=10**6, min_saving=0, error_feedback=False)
    compressor = {"PowerSGD": full_rank, "Identity": Identity(), "fp16": Cast()}[name]
    means, last = _join_after(3, compressor)
    assert last == 0
    simulator = Simulator(compressor, stock.size(), allow_larger=True)
    for step, found in enumerate(means):
        everyone = gradients(step)
        if step == 3:
            everyone = [everyone[0], *({n: torch.zeros_like(g) for n, g in own.items()} for own in everyone[1:])]
        expected = simulator.step([dict(reversed(own.items())) for own in everyone])[0]
        assert_close(found, {n: expected[n] for n in found}, 2e-3 if name == "fp16" else 3e-5)


@check(min_ranks=2)
def join_with_error_feedback() -> None:
    """What a joined rank has in its residual stays there; the others go on with theirs."""
    means, _ = _join_after(2, PowerSGD(rank=2))
    assert len(means) == (3 if stock.rank() == 0 else 2)
    assert all(torch.isfinite(x).all() and (x.any() or x.numel() == 0) for mean in means for x in mean.values())


@check(min_ranks=2, cases=["TwoWay", "bf16"])
def join_raises_for_compressors_that_gather(name: str) -> None:
    params = parameters()
    optimizer = distributed(params, TwoWay(Identity()) if name == "TwoWay" else Cast("bfloat16"))
    with raises(ConfigurationError, "hvd.join()", repr(optimizer.compression)):
        hvd.join()
    del optimizer  # and its compressor with it, at once: ranks collect garbage at different times
    assert hvd.join() in range(stock.size())


@check(min_ranks=2)
def join_raises_for_a_checksum_that_zeros_would_spoil() -> None:
    params = parameters()
    optimizer = distributed(params, SketchedSGD(0.02, candidates=2, min_size=8))
    assert optimizer.exchange.plan.units
    with raises(ConfigurationError, "hvd.join() answers allreduces with zeros"):
        hvd.join()
    del optimizer  # as above
    assert hvd.join() in range(stock.size())


@check(cases=["PowerSGD", "bf16", "cold"])
def random_streams_are_left_alone(name: str) -> None:
    compressor = {"PowerSGD": PowerSGD, "bf16": "bf16", "cold": PowerSGD(warm_start=False)}[name]
    params = parameters()
    own = [gradients(step)[stock.rank()] for step in range(3)]
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    optimizer = distributed(params, compressor, check_replicas_every=1)
    for grads in own:
        backward(params, grads)
        optimizer.step()
        optimizer.zero_grad()
    assert torch.equal(torch.get_rng_state(), before[0])
    state, now = before[1], np.random.get_state()
    assert all(np.array_equal(a, b) for a, b in zip(state, now, strict=True))
    assert random.getstate() == before[2]


@check(cases=["PowerSGD", "bf16"])
def later_steps_keep_nothing_more(name: str) -> None:
    compressor = {
        "PowerSGD": PowerSGD(rank=2),
        "bf16": Cast("bfloat16"),
    }[name]
    params = parameters()
    optimizer = distributed(params, compressor)
    own = gradients(0)[stock.rank()]

    def held() -> tuple[list[tuple[str, tuple[int, ...]]], int, int]:
        gc.collect()
        tensors = [x for x in gc.get_objects() if issubclass(type(x), torch.Tensor)]
        leaves = [(path, tuple(x.shape)) for path, x in walk(optimizer.exchange.state_dict()) if hasattr(x, "shape")]
        return leaves, len(tensors), sum(x.numel() for x in tensors)

    sizes = []
    for _ in range(8):
        backward(params, own)
        optimizer.step()
        optimizer.zero_grad()
        sizes.append(held())
    # The first two steps settle caches; Horovod's own thread may hold a last buffer for a moment longer.
    early, late = sizes[2:5], sizes[5:]
    assert all(leaves == sizes[2][0] for leaves, _, _ in sizes), sizes
    assert min(early, key=lambda x: x[1:])[1:] == min(late, key=lambda x: x[1:])[1:], sizes
    assert bool(sizes[2][0]) == (name != "bf16")


@check()
def a_dropped_optimizer_is_freed() -> None:
    """Hooks must not keep a model and its residuals alive for ever."""
    import weakref

    model = nn.Linear(30, 20)
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    optimizer = hvd.DistributedOptimizer(
        torch.optim.SGD(model.parameters(), lr=0.1), model.named_parameters(), compression=PowerSGD, allow_larger=True
    )
    model(torch.ones(2, 30)).sum().backward()
    optimizer.step()
    exchange_, weight = weakref.ref(optimizer.exchange), weakref.ref(model.weight)
    del model, optimizer
    gc.collect()
    assert exchange_() is None
    assert weight() is None
