"""DistributedOptimizer: the user's own optimizer, with gradients exchanged before each step."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import horovod.torch as stock
import torch

from ..codecs import Identity
from ..contract import Codec, Operator, Spec
from ..drivers.settings import ExchangeSettings, check_passes, check_scales
from ..errors import ConfigurationError, UsageError
from ..operators import AllReduce, HorovodCompressor
from ..registry import resolve
from .gradient_exchange import GradientExchange
from .parameters import group_names, named_gradients
from .settings import check_optimizer
from .stepping import attach

_wrapped: weakref.WeakSet[torch.optim.Optimizer] = weakref.WeakSet()
_exchanges: weakref.WeakSet[GradientExchange] = weakref.WeakSet()


def DistributedOptimizer(
    optimizer: torch.optim.Optimizer,
    named_parameters: Iterable[tuple[str, torch.nn.Parameter]] | None = None,
    compression: Any = stock.Compression.none,
    backward_passes_per_step: int = 1,
    op: Any = stock.Average,
    gradient_predivide_factor: float = 1.0,
    num_groups: int = 0,
    groups: int | Sequence[Sequence[torch.Tensor]] | None = None,
    sparse_as_dense: bool = False,
    process_set: Any = stock.global_process_set,
    *,
    bucket_megabytes: float = 25.0,
    overlap: bool = True,
    check_replicas_every: int = 0,
    allow_larger: bool = False,
) -> Any:
    """Make an optimizer exchange compressed gradients over Horovod before each step.

    The object that you pass in is returned: its class, state, defaults and parameter groups are untouched. It gains
    `synchronize()`, `skip_synchronize()`, `set_backward_passes_per_step()` as Horovod's has them, and `exchange`, which
    has the plan, the meter and the compression state. Collective: all ranks of the process set call it.

    Args:
        optimizer: any torch optimizer.
        named_parameters: `model.named_parameters()`; residuals are kept by these names.
        compression: a compressor instance, class, factory or name, or one of Horovod's `hvd.Compression`.
        backward_passes_per_step: gradients accumulate over so many backward passes before the exchange.
        op: `hvd.Average` or `hvd.Sum`; `hvd.Adasum` with compressors that are one summable round.
        gradient_predivide_factor: divide by it before the exchange and multiply after it; average only.
        num_groups: the older name of `groups` as a number.
        groups: gradients that travel together: a number of groups, or lists of parameters.
        sparse_as_dense: make sparse gradients dense for the exchange; otherwise they are gathered uncompressed.
        process_set: the ranks that train together.
        bucket_megabytes: gradients that travel together where `groups` says nothing, up to about 10^6 bytes each.
        overlap: start exchanges during backward; without it they all start in `synchronize()`.
        check_replicas_every: compare parameters across ranks every so many steps; 0: after the first step only.
        allow_larger: compress also where that sends more than a plain average; otherwise such gradients travel dense,
            with a warning.

    Raises:
        ConfigurationError: an argument cannot be honoured; the message names it and the alternative.
        RankDisagreementError: ranks differ in names, shapes, compressor or settings.
    """
    compressor = Identity() if compression is stock.Compression.none else resolve(compression)
    passes = check_passes(backward_passes_per_step)
    groups = groups if groups is not None else num_groups
    _check_supported(optimizer, op)
    check_optimizer(optimizer, compressor)
    if op == stock.Adasum:
        suited = _for_stock(compressor, compression)
        if check_replicas_every:
            raise ConfigurationError("op=hvd.Adasum cannot check replicas; leave check_replicas_every at 0.")
        if stock.size() > 1:
            return stock.DistributedOptimizer(
                optimizer,
                named_parameters,
                suited,
                passes,
                op,
                gradient_predivide_factor,
                groups=groups or None,
                sparse_as_dense=sparse_as_dense,
                process_set=process_set,
            )
    settings = ExchangeSettings(
        average=op != stock.Sum,
        gradient_predivide_factor=float(gradient_predivide_factor),
        sparse_as_dense=sparse_as_dense,
        bucket_bytes=bucket_megabytes * 1e6,
        check_replicas_every=check_replicas_every,
        allow_larger=allow_larger,
    )
    check_scales(compressor, settings)
    named = named_gradients(optimizer, named_parameters)
    exchange: GradientExchange | None = None
    for older in exchanges():
        older.release({p for _, p in named})
    if process_set.included():
        exchange = GradientExchange(
            optimizer, named, compressor, settings, process_set, passes, overlap, group_names(named, groups)
        )
        _exchanges.add(exchange)
    attach(optimizer, exchange, compressor)
    _wrapped.add(optimizer)
    return optimizer


def exchanges() -> list[GradientExchange]:
    """Return the exchanges of all live optimizers of this process, in the order in which they were made."""
    return sorted(_exchanges, key=lambda exchange: exchange.number)


def _check_supported(optimizer: torch.optim.Optimizer, op: Any) -> None:
    if not stock.is_initialized():
        raise UsageError("Horovod is not initialised; call hvd.init() before hvd.DistributedOptimizer().")
    if optimizer in _wrapped or hasattr(optimizer, "skip_synchronize"):
        raise ConfigurationError("This optimizer is distributed already; wrap it once.")
    if op not in (stock.Average, stock.Sum, stock.Adasum):
        raise ConfigurationError(f"op={op!r} cannot combine compressed gradients; use hvd.Average or hvd.Sum.")
    if os.environ.get("HOROVOD_ELASTIC") == "1":
        raise ConfigurationError(
            "Elastic jobs change the number of workers, which compression state does not follow yet; start with a "
            "fixed number (horovodrun -np N)."
        )


def _for_stock(compressor: Operator | Codec, compression: Any) -> Any:
    """Return what Horovod's own optimizer can use in place of a compressor of one summable round."""
    if isinstance(compressor, HorovodCompressor):
        return compression
    codec = compressor.codec if isinstance(compressor, AllReduce) else compressor
    if isinstance(codec, Codec) and codec.summable(Spec((1,))):
        return codec
    raise ConfigurationError(
        f"op=hvd.Adasum combines gradients inside one allreduce, which {compressor!r} is not; use op=hvd.Average."
    )
