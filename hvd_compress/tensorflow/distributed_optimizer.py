"""DistributedOptimizer: the user's own optimizer, which exchanges gradients before it applies them."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Any

import horovod.tensorflow as stock
import tensorflow as tf

from ..drivers.settings import check_passes
from ..errors import ConfigurationError
from .accumulation import Accumulation
from .optimizer_kinds import attach_to_tf_keras, attach_to_tf_keras_legacy, attach_to_v1
from .surroundings import check_started
from .variable_exchange import Variable, VariableExchange, check_groups


def DistributedOptimizer(
    optimizer: Any,
    name: str | None = None,
    use_locking: bool = False,
    device_dense: str = "",
    device_sparse: str = "",
    compression: Any = stock.Compression.none,
    sparse_as_dense: bool = False,
    backward_passes_per_step: int = 1,
    op: Any = stock.Average,
    gradient_predivide_factor: float = 1.0,
    average_aggregated_gradients: bool = False,
    num_groups: int = 0,
    groups: int | Sequence[Sequence[Variable]] | None = None,
    process_set: Any = stock.global_process_set,
    scale_local_gradients: bool = True,
    *,
    bucket_megabytes: float = 25.0,
    check_replicas_every: int = 0,
    allow_larger: bool = False,
) -> Any:
    """Make an optimizer exchange compressed gradients over Horovod before it applies them.

    Optimizers of tf_keras (`Optimizer` and `legacy`, also inside a `LossScaleOptimizer`) and of `tf.compat.v1.train`
    are returned as they were passed in: class, name, configuration and state are untouched. They gain
    `register_local_var()` and `exchange`, whose variables `tf.train.Checkpoint(optimizer=...)` saves with the
    optimizer's. For Keras 3 see `hvd_compress.keras.DistributedOptimizer`.

    Gradients are exchanged once: after local accumulation, before the optimizer clips them. Use this or
    `hvd.DistributedGradientTape`, not both.

    Args:
        optimizer: of Keras 3, of tf_keras, or of `tf.compat.v1.train`, used eagerly or in `tf.function`.
        name: taken for Horovod's sake; the optimizer keeps its name.
        use_locking: taken for Horovod's sake; the optimizer keeps its own.
        device_dense: where collectives of dense gradients run; "" leaves it to TensorFlow.
        device_sparse: where collectives of `tf.IndexedSlices` run.
        compression: a compressor instance, class, factory or name, or one of Horovod's `hvd.Compression`.
        sparse_as_dense: make `tf.IndexedSlices` dense for the exchange; otherwise they are gathered uncompressed.
        backward_passes_per_step: gradients of so many calls are added up before the exchange; calls in between change
            nothing but the optimizer's `iterations`.
        op: `hvd.Average` or `hvd.Sum`.
        gradient_predivide_factor: divide by it before the exchange and multiply after it; average only.
        average_aggregated_gradients: divide what was added up by `backward_passes_per_step`.
        num_groups: the older name of `groups` as a number.
        groups: gradients that travel together: a number of groups, or lists of variables.
        process_set: the ranks that train together; others keep their own gradients.
        scale_local_gradients: divide the gradients of `register_local_var` by the number of ranks.
        bucket_megabytes: gradients that travel together where `groups` says nothing, up to about 10^6 bytes each.
        check_replicas_every: compare variables across ranks every so many steps; 0: before the second step only.
        allow_larger: compress also where that sends more than a plain average; otherwise such gradients travel dense,
            with a warning.

    Raises:
        ConfigurationError: an argument cannot be honoured; the message names it and the alternative.
        UsageError: Horovod is not initialised.
        RankDisagreementError: at the first step, ranks differ in variables, compressor or settings.
    """
    del use_locking
    check_started()
    if num_groups:
        warnings.warn("num_groups is the older name of groups; pass groups=...", DeprecationWarning, stacklevel=2)
    groups = groups if groups is not None else num_groups
    check_groups(groups)
    passes = check_passes(backward_passes_per_step)
    if op == stock.Adasum:
        raise ConfigurationError(
            "op=hvd.Adasum: Horovod has it for the tape only; use hvd.DistributedGradientTape(tape, op=hvd.Adasum), or "
            "op=hvd.Average."
        )
    if hasattr(optimizer, "register_local_var"):
        raise ConfigurationError("This optimizer is distributed already; wrap it once.")
    options = {
        "op": op,
        "gradient_predivide_factor": gradient_predivide_factor,
        "sparse_as_dense": sparse_as_dense,
        "process_set": process_set,
        "groups": groups,
        "scale_local_gradients": scale_local_gradients,
        "bucket_megabytes": bucket_megabytes,
        "check_replicas_every": check_replicas_every,
        "allow_larger": allow_larger,
    }
    if _is_of("keras", optimizer, "Optimizer"):
        from ..keras import DistributedOptimizer as for_keras

        return for_keras(
            optimizer,
            name=name,
            device_dense=device_dense,
            device_sparse=device_sparse,
            compression=compression,
            backward_passes_per_step=passes,
            average_aggregated_gradients=average_aggregated_gradients,
            **options,
        )
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    if inner is not optimizer and passes > 1:
        raise ConfigurationError(
            f"backward_passes_per_step={passes}: a loss-scale optimizer judges every pass by itself; use 1, or the "
            "optimizer without loss scaling."
        )
    exchange = VariableExchange(compression, device_dense=device_dense, device_sparse=device_sparse, **options)
    exchange.tell(
        backward_passes_per_step=passes, average_aggregated_gradients=average_aggregated_gradients or passes == 1
    )
    accumulation = Accumulation(passes, average_aggregated_gradients, sparse_as_dense) if passes > 1 else None
    if _is_of("tf_keras", inner, "legacy.Optimizer"):
        attach_to_tf_keras_legacy(inner, exchange, accumulation)
    elif _is_of("tf_keras", inner, "Optimizer"):
        attach_to_tf_keras(inner, exchange, accumulation)
    elif isinstance(inner, tf.compat.v1.train.Optimizer):
        attach_to_v1(inner, exchange, accumulation)
    else:
        raise ConfigurationError(
            f"{type(optimizer).__name__} is no optimizer of Keras 3, tf_keras or tf.compat.v1.train; take its "
            "gradients from hvd.DistributedGradientTape."
        )
    if inner is not optimizer:
        optimizer.register_local_var = exchange.register_local
    return optimizer


def _is_of(package: str, optimizer: Any, name: str) -> bool:
    """Return whether an optimizer is of a package's class, without importing the package."""
    found = sys.modules.get(package)
    if found is None or (package == "keras" and not found.__version__.startswith("3.")):
        return False
    owner: Any = found.optimizers
    for part in name.split("."):
        owner = getattr(owner, part)
    return isinstance(optimizer, owner)
