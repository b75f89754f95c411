"""Rivals: every way of exchanging gradients that is compared, behind one function that does a training step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import nn

from ...errors import ConfigurationError
from .models import Workload
from .one_reduction import OneReduction

_RATE = 1e-3
# The hook of DDP fails over Gloo with several buckets.
_ONE_BUCKET_MB = 4096
# The fewest dense steps that the hook of DDP takes before those of PowerSGD.
_DENSE_STEPS = 2


@final
@dataclass(frozen=True)
class Trainee:
    """A model that is trained in one way.

    Args:
        step: does a training step, whole.
        exchange: of ours, which has a meter; None for rivals.
        late: first steps that are not yet what the row is about.
    """

    step: Callable[[], None]
    exchange: Any = None
    late: int = 0


def trainee(row: str, workload: Workload) -> Trainee:
    """Return the way of training that a row of the results is about.

    Args:
        row: "alone"; "horovod" or "horovod:fp16"; "ddp", "ddp:fp16", "ddp:bf16" or "ddp:powersgd4";
            "one-reduction:4"; or "ours:NAME" with a name of `registry.names()` and its settings.
        workload: trained; a model of its own for each row.

    Raises:
        ConfigurationError: there is no such row.
    """
    kind, _, detail = row.partition(":")
    makers = {"alone": _alone, "horovod": _horovod, "ddp": _ddp, "one-reduction": _one_reduction, "ours": _ours}
    if kind not in makers:
        raise ConfigurationError(f"Row {row!r}: give {', '.join(makers)}, with details after a colon.")
    return makers[kind](workload, detail)


def _sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=_RATE)


def _stepping(model: nn.Module, workload: Workload, optimizer: Any) -> Callable[[], None]:
    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(workload.loss(model))
        optimizer.step()

    return step


def _alone(workload: Workload, detail: str) -> Trainee:
    return Trainee(_stepping(workload.model, workload, _sgd(workload.model)))


def _horovod(workload: Workload, detail: str) -> Trainee:
    import horovod.torch as stock

    known = {"": stock.Compression.none, "fp16": stock.Compression.fp16}
    if detail not in known:
        raise ConfigurationError(f"Row 'horovod:{detail}': give fp16, or horovod alone.")
    compression = known[detail]
    named = list(workload.model.named_parameters())
    optimizer = stock.DistributedOptimizer(_sgd(workload.model), named, compression=compression)
    return Trainee(_stepping(workload.model, workload, optimizer))


def _ours(workload: Workload, detail: str) -> Trainee:
    import hvd_compress.torch as hvd

    optimizer = hvd.DistributedOptimizer(_sgd(workload.model), workload.model.named_parameters(), compression=detail)
    return Trainee(_stepping(workload.model, workload, optimizer), optimizer.exchange)


def _one_reduction(workload: Workload, detail: str) -> Trainee:
    if not detail.isdecimal() or int(detail) < 1:
        raise ConfigurationError(f"Row 'one-reduction:{detail}': give a rank of at least 1, as in one-reduction:4.")
    world_size = torch.distributed.get_world_size()

    def average(buffer: torch.Tensor) -> None:
        torch.distributed.all_reduce(buffer)
        buffer.div_(world_size)

    parameters = list(workload.model.parameters())
    reducer, optimizer = OneReduction(parameters, int(detail), average), _sgd(workload.model)

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(workload.loss(workload.model))
        reducer.exchange()
        optimizer.step()

    return Trainee(step)


def _ddp(workload: Workload, detail: str) -> Trainee:
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
    from torch.nn.parallel import DistributedDataParallel

    one_bucket = detail.startswith("powersgd")
    model = DistributedDataParallel(workload.model, bucket_cap_mb=_ONE_BUCKET_MB if one_bucket else None)
    if detail == "fp16":
        model.register_comm_hook(None, default_hooks.fp16_compress_hook)
    elif detail == "bf16":
        # By its own name DDP takes it with NCCL only; Gloo adds up bfloat16 as well.
        model.register_comm_hook(None, lambda state, bucket: default_hooks.bf16_compress_hook(state, bucket))
    elif one_bucket and detail.removeprefix("powersgd").isdecimal():
        state = powerSGD_hook.PowerSGDState(
            None,
            matrix_approximation_rank=int(detail.removeprefix("powersgd")),
            start_powerSGD_iter=_DENSE_STEPS,
        )
        model.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
    elif detail:
        raise ConfigurationError(f"Row 'ddp:{detail}': give fp16, bf16 or powersgd and a rank.")
    return Trainee(_stepping(model, workload, _sgd(workload.model)), late=_DENSE_STEPS if one_bucket else 0)
