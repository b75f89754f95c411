"""Functions of Horovod's namespace that must know of compression."""

from __future__ import annotations

import gc
from typing import Any

import horovod.torch as stock

from ..contract import Mean, Sum
from ..errors import ConfigurationError
from .distributed_optimizer import exchanges

FAR = 2**40  # a step after every warm-up


def broadcast_optimizer_state(optimizer: Any, root_rank: int, model: Any = None) -> None:
    """Give every rank the optimizer state of one rank; the arguments are Horovod's.

    Horovod takes a step with zero gradients where there is no state yet; that step must not be exchanged, since other
    ranks may not take it.
    """
    exchange = getattr(optimizer, "exchange", None)
    if exchange is None:
        stock.broadcast_optimizer_state(optimizer, root_rank, model)
        return
    with exchange.suspended():
        stock.broadcast_optimizer_state(optimizer, root_rank, model)


def join(device: int = -1) -> int:
    """Say that this rank has no more data, and wait for the others; the arguments are Horovod's.

    Raises:
        ConfigurationError: a live optimizer's compressor, or its check of replicas, uses collectives other than
            allreduce.
    """
    gc.collect()  # ranks collect dropped optimizers at different times, but must decide alike
    for exchange in exchanges():
        plan = exchange.plan
        kinds = {
            payload.kind
            for unit in plan.units
            for step in (exchange.step, exchange.step + 1, FAR, FAR + 1)
            for payloads in unit.operator.traffic(unit.spec, 2, step)
            for payload in payloads
        }
        if kinds - {Mean, Sum}:
            raise ConfigurationError(
                f"hvd.join() answers allreduces only, but {plan.compressor!r} gathers; give every rank the same number "
                "of batches."
            )
        if any(not unit.operator.bears_absence for unit in plan.units):
            raise ConfigurationError(
                f"hvd.join() answers allreduces with zeros, which {plan.compressor!r} would take for a rank that "
                "disagrees; give every rank the same number of batches."
            )
        if exchange.checks_replicas:
            raise ConfigurationError(
                "hvd.join() answers allreduces only, but check_replicas_every gathers; keep it 0, or give every rank "
                "the same number of batches."
            )
    last = int(stock.join(device))
    # Ranks that joined early missed steps: their step count and factors are behind, their residuals are their own.
    for exchange in exchanges():
        exchange.follow(last)
    return last
