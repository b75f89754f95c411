"""DistributedOptimizer: the user's own Keras 3 optimizer, with gradients exchanged in each step."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import horovod.tensorflow as stock
import keras

from ..drivers.settings import check_passes
from ..errors import ConfigurationError
from ..tensorflow.settings import check_optimizer
from ..tensorflow.surroundings import check_one_replica, check_started
from ..tensorflow.variable_exchange import VariableExchange
from .attachment import Attachment
from .loss_scaling import check_asks, teach_loss_scaling


def DistributedOptimizer(
    optimizer: Any,
    name: str | None = None,
    device_dense: str = "",
    device_sparse: str = "",
    compression: Any = stock.Compression.none,
    sparse_as_dense: bool = False,
    gradient_predivide_factor: float = 1.0,
    op: Any = stock.Average,
    backward_passes_per_step: int = 1,
    average_aggregated_gradients: bool = False,
    num_groups: int = 0,
    groups: int | Sequence[Sequence[Any]] | None = None,
    process_set: Any = stock.global_process_set,
    scale_local_gradients: bool = True,
    *,
    bucket_megabytes: float = 25.0,
    check_replicas_every: int = 0,
    allow_larger: bool = False,
) -> Any:
    """Make a Keras 3 optimizer exchange compressed gradients over Horovod in each step.

    The object that you pass in is returned: its class, name, configuration and state are untouched, so that a saved
    model loads without this package. It gains `variable_exchange`, which has the plan and the compression state, and
    `register_local_var()` as Horovod's has it. Of a `LossScaleOptimizer` the optimizer inside is made distributed.

    Args:
        optimizer: of `keras.optimizers`, or of a class derived from one.
        name: prefix of the names of operations in graphs.
        device_dense: where collectives of dense gradients run; "" leaves it to TensorFlow.
        device_sparse: where collectives of `tf.IndexedSlices` run.
        compression: a compressor instance, class, factory or name, or one of Horovod's `hvd.Compression`.
        sparse_as_dense: make `tf.IndexedSlices` dense for the exchange; otherwise they are gathered uncompressed.
        gradient_predivide_factor: divide by it before the exchange and multiply after it; average only.
        op: `hvd.Average` or `hvd.Sum`.
        backward_passes_per_step: gradients accumulate over so many steps before the exchange; this sets
            `optimizer.gradient_accumulation_steps`.
        average_aggregated_gradients: accumulated gradients are averaged, as Keras by itself does over its
            `gradient_accumulation_steps`; otherwise added up, as with Horovod.
        num_groups: the older name of `groups` as a number.
        groups: gradients that travel together: a number of groups, or lists of variables.
        process_set: the ranks that train together.
        scale_local_gradients: divide the gradients of local variables by the number of ranks.
        bucket_megabytes: gradients that travel together where `groups` says nothing, up to about 10^6 bytes each.
        check_replicas_every: compare variables across ranks every so many steps; 0: before the second step only.
        allow_larger: compress also where that sends more than a plain average; otherwise such gradients travel dense,
            with a warning.

    Raises:
        ConfigurationError: an argument cannot be honoured; the message names it and the alternative.
        UsageError: Horovod is not initialised.
    """
    inner = optimizer.inner_optimizer if _is_loss_scale(optimizer) else optimizer
    check_started()
    _check_supported(optimizer)
    _check_supported(inner)
    check_one_replica()
    if num_groups:
        warnings.warn("num_groups is the older name of groups; use groups.", DeprecationWarning, stacklevel=2)
    exchange = VariableExchange(
        compression,
        op=op,
        gradient_predivide_factor=gradient_predivide_factor,
        sparse_as_dense=sparse_as_dense,
        process_set=process_set,
        groups=groups if groups is not None else num_groups,
        scale_local_gradients=scale_local_gradients,
        bucket_megabytes=bucket_megabytes,
        check_replicas_every=check_replicas_every,
        allow_larger=allow_larger,
        device_dense=device_dense,
        device_sparse=device_sparse,
    )
    check_optimizer(inner, exchange.compressor)
    passes = check_passes(backward_passes_per_step)
    teach_loss_scaling()
    if inner is not optimizer:
        check_asks(optimizer)
    _accumulate(inner, passes)
    factor = 1.0 if average_aggregated_gradients else float(passes)
    Attachment(inner, exchange, factor, name or f"Distributed{type(inner).__name__}")
    return optimizer


def PartialDistributedOptimizer(optimizer: Any, *args: Any, local_layers: Any = None, **options: Any) -> Any:
    """Make an optimizer distributed, but for the weights of some layers, which each rank trains by itself.

    Args:
        optimizer: as for `DistributedOptimizer`.
        args: further arguments of `DistributedOptimizer`, as `options`.
        local_layers: a layer or several, built already; their trainable weights are each rank's own.
        options: see `args`.

    Raises:
        ConfigurationError: one is no layer of Keras 3, or not built; otherwise as `DistributedOptimizer`.
    """
    given = () if local_layers is None else local_layers
    layers = list(given) if isinstance(given, Iterable) else [given]
    for layer in layers:
        if not isinstance(layer, keras.layers.Layer) or not layer.built:
            raise ConfigurationError(
                f"local_layers has {layer!r}, which is no layer of Keras 3 that is built; call model.build(...) before "
                "hvd.PartialDistributedOptimizer()."
            )
    made = DistributedOptimizer(optimizer, *args, **options)
    inner = made.inner_optimizer if _is_loss_scale(made) else made
    for layer in layers:
        for variable in layer.trainable_weights:
            inner.register_local_var(variable)
    return made


def _is_loss_scale(optimizer: Any) -> bool:
    return isinstance(optimizer, keras.optimizers.LossScaleOptimizer)


def _check_supported(optimizer: Any) -> None:
    kind = f"{type(optimizer).__module__}.{type(optimizer).__name__}"
    if keras.backend.backend() != "tensorflow":
        raise ConfigurationError(
            f"Keras runs on {keras.backend.backend()!r}, where Horovod has no operations; set "
            "KERAS_BACKEND=tensorflow, or use hvd_compress.torch in a training loop of your own."
        )
    if any(base.__module__.startswith("horovod.") for base in type(optimizer).__mro__):
        raise ConfigurationError(
            "This optimizer was wrapped by Horovod's own DistributedOptimizer, which reduces no gradient under Keras "
            "3; wrap the plain optimizer, by hvd.DistributedOptimizer of hvd_compress.keras alone."
        )
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise ConfigurationError(
            f"A {kind} is no optimizer of Keras 3; use keras.optimizers, or for tf_keras and tf.compat.v1 "
            "DistributedOptimizer of hvd_compress.tensorflow."
        )
    if getattr(optimizer, "variable_exchange", None) is not None:
        raise ConfigurationError("This optimizer is distributed already; wrap it once.")
    if hasattr(optimizer, "optimizers"):
        raise ConfigurationError(
            f"{type(optimizer).__name__} leaves variables to several optimizers; make each of those distributed "
            "instead: OptimizerMap(hvd.DistributedOptimizer(...), {...})."
        )


def _accumulate(optimizer: Any, passes: int) -> None:
    """Let Keras accumulate gradients over so many steps."""
    own = optimizer.gradient_accumulation_steps
    if passes == 1 or own == passes:
        return
    if own:
        raise ConfigurationError(
            f"backward_passes_per_step={passes}, but the optimizer has gradient_accumulation_steps={own}; set one of "
            "the two."
        )
    if optimizer.built:
        raise ConfigurationError(
            f"backward_passes_per_step={passes} needs an optimizer that has no variables yet; pass "
            f"gradient_accumulation_steps={passes} to {type(optimizer).__name__}, or wrap it before the first step."
        )
    optimizer.gradient_accumulation_steps = passes
