"""DistributedGradientTape: the user's own tape, whose gradients are exchanged."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, final

import horovod.tensorflow as stock
import tensorflow as tf

from ..errors import ConfigurationError, UsageError
from .adasum import for_stock
from .compression_state import Asked, CompressionState, state_of, warn_of_another
from .exchanged import check_not_exchanged, mark_exchanged
from .identity import identity
from .learning_rate import current_learning_rate
from .surroundings import check_started
from .variable_exchange import Variable, VariableExchange, check_groups


def DistributedGradientTape(
    gradtape: tf.GradientTape,
    device_dense: str = "",
    device_sparse: str = "",
    compression: Any = stock.Compression.none,
    sparse_as_dense: bool = False,
    op: Any = stock.Average,
    gradient_predivide_factor: float = 1.0,
    num_groups: int = 0,
    groups: int | Sequence[Sequence[Variable]] | None = None,
    process_set: Any = stock.global_process_set,
    scale_local_gradients: bool = True,
    *,
    learning_rate: Any = None,
    state: CompressionState | None = None,
    bucket_megabytes: float = 25.0,
    check_replicas_every: int = 0,
    allow_larger: bool = False,
) -> Any:
    """Wrap a tape so that `gradient()` returns compressed mean gradients of all ranks; all else is the tape's own.

    As with Horovod the wrapper can be made anew at every step, eagerly or inside `tf.function`: residuals belong to
    the variables, and the next tape over the same variables with the same arguments goes on with them. They are
    dropped with the variables.

    Args:
        gradtape: any `tf.GradientTape`.
        device_dense: where collectives of dense gradients run; "" leaves it to TensorFlow.
        device_sparse: where collectives of `tf.IndexedSlices` run.
        compression: a compressor instance, class, factory or name, or one of Horovod's `hvd.Compression`.
        sparse_as_dense: make `tf.IndexedSlices` dense for the exchange; otherwise they are gathered uncompressed.
        op: `hvd.Average` or `hvd.Sum`; `hvd.Adasum` with compressors that are one summable round.
        gradient_predivide_factor: divide by it before the exchange and multiply after it; average only.
        num_groups: the older name of `groups` as a number.
        groups: gradients that travel together: a number of groups, or lists of variables.
        process_set: the ranks that train together; others keep their own gradients.
        scale_local_gradients: divide the gradients of `register_local_source` by the number of ranks.
        learning_rate: the optimizer, or a number, variable, function or schedule; needed by compressors that follow
            it. A schedule without its optimizer is asked for the number of exchanges done.
        state: where residuals are kept, to save them; by default one is found by the variables.
        bucket_megabytes: gradients that travel together where `groups` says nothing, up to about 10^6 bytes each.
        check_replicas_every: compare variables across ranks every so many steps; 0: before the second step only.
        allow_larger: compress also where that sends more than a plain average; otherwise such gradients travel dense,
            with a warning.

    Raises:
        ConfigurationError: an argument cannot be honoured; the message names it and the alternative.
        UsageError: Horovod is not initialised, or `state` is that of other variables or settings.
        RankDisagreementError: from `gradient()`, at the first step: ranks differ in variables, compressor or settings.
    """
    check_started()
    if num_groups:
        warnings.warn("num_groups is the older name of groups; pass groups=...", DeprecationWarning, stacklevel=2)
    groups = groups if groups is not None else num_groups
    check_groups(groups)
    if op == stock.Adasum:
        ours = {
            "groups": groups or None,
            "check_replicas_every": check_replicas_every or None,
            "learning_rate": learning_rate,
            "state": state,
            "bucket_megabytes": None if bucket_megabytes == 25.0 else bucket_megabytes,
            "allow_larger": allow_larger or None,
        }
        return stock.DistributedGradientTape(
            gradtape,
            device_dense,
            device_sparse,
            for_stock(compression, ours),
            sparse_as_dense,
            op,
            gradient_predivide_factor,
            process_set=process_set,
            scale_local_gradients=scale_local_gradients,
        )
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
        "device_dense": device_dense,
        "device_sparse": device_sparse,
    }
    return _DistributedTape(gradtape, compression, options, learning_rate, state)


def PartialDistributedGradientTape(
    gradtape: tf.GradientTape,
    device_dense: str = "",
    device_sparse: str = "",
    compression: Any = stock.Compression.none,
    sparse_as_dense: bool = False,
    op: Any = stock.Average,
    gradient_predivide_factor: float = 1.0,
    num_groups: int = 0,
    groups: int | Sequence[Sequence[Variable]] | None = None,
    process_set: Any = stock.global_process_set,
    local_layers: Any = None,
    scale_local_gradients: bool = True,
    **options: Any,
) -> Any:
    """Wrap a tape as `DistributedGradientTape`, but leave the gradients of some layers to this rank.

    Args:
        gradtape: any `tf.GradientTape`.
        device_dense: as for `DistributedGradientTape`, like all arguments but `local_layers`.
        device_sparse: see there.
        compression: see there.
        sparse_as_dense: see there.
        op: see there.
        gradient_predivide_factor: see there.
        num_groups: see there.
        groups: see there.
        process_set: see there.
        scale_local_gradients: see there.
        local_layers: a layer or a list of them; their trainable weights are local sources.
        options: the keyword arguments of `DistributedGradientTape` that Horovod has not.

    Raises:
        ConfigurationError, UsageError, RankDisagreementError: as `DistributedGradientTape`.
    """
    layers = [] if local_layers is None else local_layers
    layers = layers if isinstance(layers, (list, tuple)) else [layers]
    for layer in layers:
        if not hasattr(layer, "trainable_weights"):
            raise ConfigurationError(f"local_layers: {layer!r} is no layer; pass layers, or register_local_source().")
    tape = DistributedGradientTape(
        gradtape,
        device_dense,
        device_sparse,
        compression,
        sparse_as_dense,
        op,
        gradient_predivide_factor,
        num_groups,
        groups,
        process_set,
        scale_local_gradients,
        **options,
    )
    for variable in (v for layer in layers for v in layer.trainable_weights):
        tape.register_local_source(variable)
    return tape


@final
class _DistributedTape:
    """The user's tape with another `gradient()`.

    It wraps the tape, so that what the tape computes by its own `gradient()`, as jacobians, is not exchanged.
    """

    def __init__(
        self,
        tape: tf.GradientTape,
        compression: Any,
        options: dict[str, Any],
        learning_rate: Any,
        state: CompressionState | None,
    ) -> None:
        if isinstance(tape, _DistributedTape) or hasattr(tape, "register_local_source"):
            raise ConfigurationError("This tape is distributed already; wrap it once.")
        self._tape = tape
        # Arguments are checked here, where the call is the user's; every list of sources gets an exchange of its own.
        self._compressor = VariableExchange(compression, **options).compressor
        self._options = options
        self._learning_rate = learning_rate
        self._state = state
        self._local: dict[int, Variable] = {}

    # Horovod's tape is a tf.GradientTape to isinstance().
    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._tape)

    def __enter__(self) -> Any:
        self._tape.__enter__()
        return self

    def __exit__(self, *details: Any) -> Any:
        return self._tape.__exit__(*details)

    def __getattr__(self, name: str) -> Any:
        if name == "_tape":  # a copy that is not made yet
            raise AttributeError(name)
        return getattr(self._tape, name)

    def register_local_source(self, source: Variable) -> None:
        """Leave a variable's gradient to this rank: it is not exchanged."""
        self._local[identity(source)] = source

    def gradient(
        self,
        target: Any,
        sources: Any,
        output_gradients: Any = None,
        unconnected_gradients: tf.UnconnectedGradients = tf.UnconnectedGradients.NONE,
        use_generic_names: bool = False,
    ) -> Any:
        """Return mean gradients of all ranks, in the structure of `sources`; all ranks call it at the same step.

        Args:
            target: as for `tf.GradientTape.gradient`.
            sources: variables, in any structure; the same ones at every step.
            output_gradients: as for `tf.GradientTape.gradient`.
            unconnected_gradients: as for `tf.GradientTape.gradient`.
            use_generic_names: Horovod's; names of collectives are equal on all ranks either way.

        Raises:
            UsageError: a source is a tensor; or gradients are new or missing since the first step.
            RankDisagreementError: at the first step, ranks differ in variables, compressor or settings.
        """
        del use_generic_names
        flat = tf.nest.flatten(sources)
        _check_variables(flat)
        own = self._tape.gradient(target, sources, output_gradients, unconnected_gradients)
        by_id = {identity(v): gradient for v, gradient in zip(flat, tf.nest.flatten(own), strict=True)}
        check_not_exchanged(by_id.values())
        asked = self._asked()
        state = self._state if self._state is not None else state_of(flat, asked)
        variables = state.variables_in_order(flat)
        exchange = state.exchange_for(variables, asked, self._make)
        is_new = exchange.exchange is None
        rate = None
        if self._learning_rate is not None:
            step = 0 if exchange.exchange is None else exchange.exchange.step.read_value()
            rate = current_learning_rate(self._learning_rate, step)
        means = exchange([by_id[identity(v)] for v in variables], variables, rate)
        if is_new and self._state is None:
            warn_of_another(state, variables)
        found = {identity(v): mean for v, mean in zip(variables, means, strict=True)}
        mark_exchanged(mean for number, mean in found.items() if number not in self._local)
        return tf.nest.pack_sequence_as(sources, [found[identity(v)] for v in flat])

    def get_local_and_global_gradients(
        self, target: Any, sources: Any, output_gradients: Any = None, use_generic_names: bool = False
    ) -> tuple[list[tuple[Variable, Any]], list[tuple[Variable, Any]]]:
        """Return (source, gradient) of local sources, and of all others, as Horovod does."""
        del use_generic_names
        flat = tf.nest.flatten(sources)
        gradients = tf.nest.flatten(self.gradient(target, sources, output_gradients))
        pairs = list(zip(flat, gradients, strict=True))
        return (
            [pair for pair in pairs if identity(pair[0]) in self._local],
            [pair for pair in pairs if identity(pair[0]) not in self._local],
        )

    def _make(self) -> VariableExchange:
        exchange = VariableExchange(self._compressor, **self._options)
        for variable in self._local.values():
            exchange.register_local(variable)
        return exchange

    def _asked(self) -> Asked:
        groups = self._options["groups"]
        told = groups if isinstance(groups, int) else tuple(tuple(identity(v) for v in group) for group in groups)
        process_set = self._options["process_set"]
        rest = {**self._options, "groups": told, "process_set": None}
        return Asked(self._compressor, tuple(rest.items()), process_set.process_set_id, frozenset(self._local))


def _check_variables(sources: Sequence[Any]) -> None:
    for place, source in enumerate(sources):
        if not hasattr(source, "assign"):
            raise UsageError(
                f"Source {place} is a tensor of shape {getattr(source, 'shape', None)}, to which no residual can "
                "belong; take gradients of tensors from the plain tape, and of variables from the distributed one."
            )
