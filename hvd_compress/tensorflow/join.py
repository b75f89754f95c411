"""hvd.join(): a rank without more data answers the others' allreduces with zeros."""

from __future__ import annotations

import gc
from typing import Any

import horovod.tensorflow as stock
import tensorflow as tf

from ..contract import Mean, Sum
from ..errors import ConfigurationError, UsageError
from .gradient_exchange import GradientExchange, live_exchanges
from .transport import HorovodTransport

FAR = 2**40  # a step after every warm-up

_joined: list[bool] = []


def join() -> Any:
    """Say that this rank has no more data, and wait for the others; return the last rank that joined, as Horovod does.

    Raises:
        ConfigurationError: the compressor of a live tape or optimizer, or its check of replicas, uses collectives
            other than allreduce.
        UsageError: this process has joined before: Horovod's join for TensorFlow then returns before the other ranks
            have joined, and pairs gradients of different steps from there on.
    """
    if _joined:
        raise UsageError(
            "hvd.join() was called before, and Horovod for TensorFlow waits in the first call only; call it once, "
            "after the last epoch, or give every rank the same number of batches."
        )
    if not tf.executing_eagerly():
        raise ConfigurationError("hvd.join() waits for other ranks; call it outside of tf.function.")
    gc.collect()  # ranks collect dropped models at different times, but must decide alike
    for exchange in live_exchanges():
        _check(exchange)
    _joined.append(True)
    last = stock.join()
    # Ranks that joined early missed steps: their step count and factors are behind, their residuals are their own.
    own = {exchange.number: exchange for exchange in live_exchanges() if exchange.process_set_id == 0}
    everyone = HorovodTransport(stock.global_process_set).gather_objects(sorted(own), "hvd_compress.tensorflow.join")
    # Garbage of one rank may live on another: what some rank has dropped is in use on none.
    for number in sorted(set(own).intersection(*everyone)):
        own[number].follow(int(last))
    return last


def _check(exchange: GradientExchange) -> None:
    plan = exchange.plan
    step = int(exchange.step.numpy())
    kinds = {
        payload.kind
        for unit in plan.units
        for at in (step, step + 1, FAR, FAR + 1)
        for payloads in unit.operator.traffic(unit.spec, 2, at)
        for payload in payloads
    }
    cure = "give every rank the same number of batches"
    if kinds - {Mean, Sum}:
        raise ConfigurationError(f"hvd.join() answers allreduces only, but {plan.compressor!r} gathers; {cure}.")
    if exchange.gathers_rows:
        raise ConfigurationError(
            "hvd.join() answers allreduces only, but tf.IndexedSlices are gathered; pass sparse_as_dense=True, or "
            f"{cure}."
        )
    if any(not unit.operator.bears_absence for unit in plan.units):
        raise ConfigurationError(
            f"hvd.join() answers allreduces with zeros, which {plan.compressor!r} would take for a rank that "
            f"disagrees; {cure}."
        )
    if step < 2:
        raise ConfigurationError(
            f"hvd.join() was called after {step} step(s): replicas are compared before the second one, which is no "
            f"allreduce; {cure}, at least two."
        )
    if exchange.checks_replicas:
        raise ConfigurationError(
            f"hvd.join() answers allreduces only, but check_replicas_every gathers; keep it 0, or {cure}."
        )
