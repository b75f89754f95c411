"""Where the optimizers of tf_keras and of `tf.compat.v1.train` take an exchange: one function a kind.

Methods are replaced on the object, not in a subclass: its class, name and configuration stay what they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, final

import tensorflow as tf

from ..errors import ConfigurationError
from .accumulation import Accumulation, Pairs
from .exchanged import check_not_exchanged, mark_exchanged
from .learning_rate import current_learning_rate
from .settings import check_clipping, check_optimizer
from .variable_exchange import VariableExchange


def attach_to_tf_keras(optimizer: Any, exchange: VariableExchange, accumulation: Accumulation | None) -> None:
    """Exchange where the class adds up the gradients of `tf.distribute` replicas: before it clips.

    A `LossScaleOptimizer` around it asks for the same, before it looks for overflows.
    """
    check_optimizer(optimizer, exchange.compressor)
    optimizer.aggregate_gradients = _Exchanging(optimizer, exchange)
    if accumulation is not None:
        optimizer.apply_gradients = _accumulating(optimizer, accumulation, optimizer.apply_gradients)
        optimizer.accumulation = accumulation
    optimizer.exchange = exchange
    optimizer.register_local_var = exchange.register_local


def attach_to_tf_keras_legacy(optimizer: Any, exchange: VariableExchange, accumulation: Accumulation | None) -> None:
    """Exchange where the class adds up the gradients of `tf.distribute` replicas: before it clips."""
    check_optimizer(optimizer, exchange.compressor)
    optimizer._aggregate_gradients = _Exchanging(optimizer, exchange)
    if accumulation is not None:
        optimizer.apply_gradients = _accumulating(optimizer, accumulation, optimizer.apply_gradients)
    _track(optimizer, exchange, accumulation)


def attach_to_v1(optimizer: Any, exchange: VariableExchange, accumulation: Accumulation | None) -> None:
    """Exchange in `compute_gradients`, so that what users do before `apply_gradients` sees means, as with Horovod.

    Gradients that `compute_gradients` did not make, or that add up first, are exchanged in `apply_gradients`.
    """
    check_optimizer(optimizer, exchange.compressor)
    exchanging = _Exchanging(optimizer, exchange)
    compute, apply = optimizer.compute_gradients, optimizer.apply_gradients
    waiting = {"exchanged": 0}  # a GAN computes the gradients of two losses before it applies any

    def compute_gradients(*args: Any, **kwargs: Any) -> list[tuple[Any, Any]]:
        pairs = list(compute(*args, **kwargs))
        if accumulation is not None:
            return pairs
        waiting["exchanged"] += 1
        return exchanging(pairs, mark=False)

    def apply_gradients(grads_and_vars: Iterable[tuple[Any, Any]], *args: Any, **kwargs: Any) -> Any:
        pairs = list(grads_and_vars)
        if waiting["exchanged"]:
            waiting["exchanged"] -= 1
            return apply(pairs, *args, **kwargs)
        if accumulation is None:
            return apply(exchanging(pairs), *args, **kwargs)
        accumulation(pairs, lambda sums: apply(exchanging(sums), *args, **kwargs), lambda: None)
        return tf.no_op()

    optimizer.compute_gradients = compute_gradients
    optimizer.apply_gradients = apply_gradients
    _track(optimizer, exchange, accumulation)


@final
class _Exchanging:
    """Takes (gradient, variable) pairs and returns them with mean gradients."""

    def __init__(self, optimizer: Any, exchange: VariableExchange) -> None:
        self._optimizer = optimizer
        self._exchange = exchange

    def __call__(self, grads_and_vars: Iterable[tuple[Any, Any]], mark: bool = True) -> list[tuple[Any, Any]]:
        pairs = list(grads_and_vars)
        check_clipping(self._optimizer, self._exchange.has_local)
        gradients, variables = [g for g, _ in pairs], [v for _, v in pairs]
        check_not_exchanged(gradients)
        made = self._exchange.exchange
        rate = None
        if made is None or made.needs_learning_rate:
            try:
                rate = current_learning_rate(self._optimizer, None)
            except ConfigurationError:
                if made is not None:  # at the first step it is not known yet whether it is needed
                    raise
        means = self._exchange(gradients, variables, rate)
        if mark:
            mark_exchanged(means)
        return list(zip(means, variables, strict=True))


def _accumulating(optimizer: Any, accumulation: Accumulation, apply: Callable[..., Any]) -> Callable[..., Any]:
    """Return `apply_gradients` for backward passes that add up."""

    def apply_gradients(grads_and_vars: Iterable[tuple[Any, Any]], *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("skip_gradients_aggregation") or not kwargs.get("experimental_aggregate_gradients", True):
            raise ConfigurationError(
                "backward_passes_per_step > 1 exchanges sums only, but was asked not to aggregate gradients, as by a "
                "loss-scale optimizer; use backward_passes_per_step=1."
            )

        def apply_sums(sums: Pairs) -> None:
            apply(sums, *args, **kwargs)

        # Horovod counts passes in between as iterations: schedules go by batches.
        accumulation(list(grads_and_vars), apply_sums, lambda: optimizer.iterations.assign_add(1))
        return optimizer.iterations

    return apply_gradients


def _track(optimizer: Any, exchange: VariableExchange, accumulation: Accumulation | None) -> None:
    """Show the exchange, also to checkpoints of an optimizer that does not track its attributes."""
    optimizer.exchange = exchange
    optimizer._track_trackable(exchange, "exchange")
    if accumulation is not None:
        optimizer._track_trackable(accumulation, "accumulation")
    optimizer.register_local_var = exchange.register_local
