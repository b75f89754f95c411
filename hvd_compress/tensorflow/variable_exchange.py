"""VariableExchange: what wrappers of optimizers and tapes share: mean gradients of variables, planned at first use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import horovod.tensorflow as stock
import tensorflow as tf

from ..codecs import Identity
from ..contract import Codec, Operator
from ..drivers.settings import ExchangeSettings
from ..errors import ConfigurationError, UsageError
from ..registry import resolve
from .gradient_exchange import Gradient, GradientExchange

Variable = Any  # a tf.Variable or a Keras variable


@final
class VariableExchange(tf.Module):
    """Exchanges gradients of variables; the plan is made of those that have a gradient at the first step.

    Args:
        compression: a compressor instance, class, factory or name, or one of Horovod's `hvd.Compression`.
        op: `hvd.Average` or `hvd.Sum`.
        gradient_predivide_factor: divide by it before the exchange and multiply after it; average only.
        sparse_as_dense: make `tf.IndexedSlices` dense for the exchange; otherwise they are gathered uncompressed.
        process_set: the ranks that train together; gradients of other ranks are left as they are.
        groups: a number of groups, or lists of variables: gradients that travel together.
        scale_local_gradients: divide the gradients of local variables by the number of ranks.
        bucket_megabytes: gradients that travel together where `groups` says nothing, about 10^6 bytes each.
        check_replicas_every: compare variables across ranks every so many steps; 0: at the second step only.
        allow_larger: compress also where that sends more than a plain average.

    Raises:
        ConfigurationError: an argument cannot be honoured.
    """

    def __init__(
        self,
        compression: Any = None,
        *,
        op: Any = stock.Average,
        gradient_predivide_factor: float = 1.0,
        sparse_as_dense: bool = False,
        process_set: Any = stock.global_process_set,
        groups: int | Sequence[Sequence[Variable]] | None = None,
        scale_local_gradients: bool = True,
        bucket_megabytes: float = 25.0,
        check_replicas_every: int = 0,
        allow_larger: bool = False,
    ) -> None:
        super().__init__(name="hvd_compress")
        if not stock.is_initialized():
            raise UsageError("Horovod is not initialised; call hvd.init() first.")
        if op not in (stock.Average, stock.Sum):
            raise ConfigurationError(f"op={op!r} cannot combine compressed gradients; use hvd.Average or hvd.Sum.")
        self.compressor: Operator | Codec = compressor_of(compression)
        self._settings = ExchangeSettings(
            average=op == stock.Average,
            gradient_predivide_factor=float(gradient_predivide_factor),
            sparse_as_dense=sparse_as_dense,
            bucket_bytes=bucket_megabytes * 1e6,
            check_replicas_every=check_replicas_every,
            allow_larger=allow_larger,
        )
        self._process_set = process_set
        self._groups = groups
        self._scale_local_gradients = scale_local_gradients
        self._local: set[int] = set()
        self.exchange: GradientExchange | None = None

    def register_local(self, variable: Variable) -> None:
        """Leave a variable's gradient to this rank: it is not exchanged."""
        self._local.add(id(variable))

    def __call__(
        self, gradients: Sequence[Gradient | None], variables: Sequence[Variable], learning_rate: Any = None
    ) -> list[Gradient | None]:
        """Return mean gradients in the same order; None stays None.

        Args:
            gradients: of `variables`, in their order.
            variables: the same ones at every step.
            learning_rate: a number, tensor or variable; needed by compressors that follow it.

        Raises:
            RankDisagreementError: at the first step, ranks differ in variables, compressor or settings.
            ConfigurationError, UsageError: as `GradientExchange`.
        """
        if not self._process_set.included():
            return list(gradients)
        results = [self._own(gradient, v) for gradient, v in zip(gradients, variables, strict=True)]
        names = variable_names(variables)
        shared = [i for i, g in enumerate(gradients) if g is not None and id(variables[i]) not in self._local]
        if not shared:
            return results
        given = {names[i]: gradients[i] for i in shared}
        if self.exchange is None:
            self.exchange = GradientExchange(
                given, self.compressor, self._settings, self._process_set, self._group_names(variables, names)
            )
        means = self.exchange(given, {names[i]: variables[i] for i in shared}, learning_rate)
        for i in shared:
            results[i] = means[names[i]]
        return results

    def _own(self, gradient: Gradient | None, variable: Variable) -> Gradient | None:
        """Return the gradient of a local variable as it is applied."""
        if gradient is None or id(variable) not in self._local or not self._scale_local_gradients:
            return gradient
        return gradient / tf.cast(self._process_set.size(), gradient.dtype)

    def _group_names(self, variables: Sequence[Variable], names: Sequence[str]) -> list[list[str]]:
        """Return the groups by name: so many consecutive parts of the variables, or those that were listed."""
        if not self._groups:
            return []
        if isinstance(self._groups, int):
            size = -(-len(names) // self._groups)
            return [list(names[i : i + size]) for i in range(0, len(names), size)]
        name_of = {id(v): name for v, name in zip(variables, names, strict=True)}
        return [[name_of[id(v)] for v in group if id(v) in name_of] for group in self._groups]


def compressor_of(compression: Any) -> Operator | Codec:
    """Return the compressor that a user asked for; None and Horovod's own `Compression.none` are a plain average."""
    return Identity() if compression in (None, stock.Compression.none) else resolve(compression)


def variable_names(variables: Sequence[Variable]) -> list[str]:
    """Return a name for every variable: its path in the model; numbered where several have the same."""
    found: list[str] = []
    for variable in variables:
        name = str(getattr(variable, "path", None) or variable.name).removesuffix(":0")
        number = sum(other == name or other.startswith(f"{name}#") for other in found)
        found.append(f"{name}#{number}" if number else name)
    return found
