"""VariableExchange: what wrappers of optimizers and tapes share: mean gradients of variables, planned at first use."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, final

import horovod.tensorflow as stock
import tensorflow as tf

from ..codecs import Identity
from ..contract import Codec, Operator
from ..drivers.settings import ExchangeSettings, check_scales
from ..errors import ConfigurationError, RankDisagreementError, UsageError
from ..registry import resolve
from . import sparse
from .gradient_exchange import Gradient, GradientExchange
from .identity import identity
from .naming import SavedNames, differ_in_numbers_only, variable_names
from .replicas import replicas_checked
from .saved_state import SavedState
from .surroundings import check_one_replica
from .transport import HorovodTransport
from .untracked import Untracked

Variable = Any  # a tf.Variable or a Keras variable

# Plans that were agreed on so far in each process set; its ranks make them in the same order.
_agreed: Counter[int] = Counter()


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
        bucket_megabytes: gradients that travel together where `groups` says nothing, up to about 10^6 bytes each.
        check_replicas_every: compare variables across ranks every so many steps; 0: before the second step only.
        allow_larger: compress also where that sends more than a plain average.
        device_dense: where collectives of dense gradients run; "" leaves it to TensorFlow.
        device_sparse: where collectives of `tf.IndexedSlices` run.

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
        device_dense: str = "",
        device_sparse: str = "",
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
        check_scales(self.compressor, self._settings)
        check_groups(groups)
        self._process_set = process_set
        self._devices = (device_dense, device_sparse)
        # Kept out of what checkpoints track, and dropped once the plan is made: models must not live by it.
        self._groups = Untracked(groups)
        self._refusal: str | None = None
        self._scale_local_gradients = scale_local_gradients
        self._local: set[int] = set()
        self._waiting: SavedState | None = None
        self._required = True
        # Of a file of Keras's, which changes names when it loads a model.
        self._file_names: tuple[str, ...] = ()
        self.saved_names = SavedNames()
        # From a variable's own name to that which was agreed on; empty until then.
        self._agreed_names = Untracked({})
        self._wrapper = Untracked({})
        self.exchange: GradientExchange | None = None

    @property
    def process_set(self) -> Any:
        """The ranks that train together."""
        return self._process_set

    def saved_state(self) -> SavedState | None:
        """Return this rank's state as arrays; None where there is none yet."""
        return self._waiting if self.exchange is None else SavedState.of(self.exchange)

    def restore(self, saved: SavedState, required: bool = True) -> None:
        """Go on from a state that `saved_state` returned; before the first step it waits for that.

        Args:
            saved: a state.
            required: raise where it does not fit this rank and what the others have; otherwise all ranks start with
                empty residuals then, and warn.

        Raises:
            ConfigurationError: it does not fit; before the first step all ranks raise that together, at that step.
        """
        if self.exchange is None:
            self._waiting, self._file_names, self._required = saved, tuple(saved.names), required
        else:
            saved.restore(self.exchange)

    @property
    def has_local(self) -> bool:
        """Whether some variables are left to this rank."""
        return bool(self._local)

    def tell(self, **settings: Any) -> None:
        """Say what the wrapper was told, by name: compared across ranks at the first step."""
        self._wrapper = Untracked({**self._wrapper.value, **settings})

    def register_local(self, variable: Variable) -> None:
        """Leave a variable's gradient to this rank: it is not exchanged."""
        self._local.add(identity(variable))

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
        check_one_replica()
        if not self._process_set.included():
            return list(gradients)
        results = [self._own(gradient, v) for gradient, v in zip(gradients, variables, strict=True)]
        if all(identity(v) in self._local for v in variables):
            return results
        if self._refusal is not None:
            raise ConfigurationError(self._refusal)
        shared = [i for i, g in enumerate(gradients) if g is not None and identity(variables[i]) not in self._local]
        names = variable_names(variables)
        if self.exchange is None:
            self._agree([names[i] for i in shared])
        names = self._renamed(names)
        given = {names[i]: self._shaped(gradients[i], variables[i]) for i in shared}
        if self.exchange is None:
            self._make(given, self._group_names(variables, names))
        assert self.exchange is not None
        self.exchange.check_names(given)
        parameters = {names[i]: variables[i] for i in shared}
        checks = replicas_checked(
            parameters,
            self.exchange.step.read_value(),
            self._settings.check_replicas_every,
            f"{self.exchange.prefix}.replicas",
            self._process_set,
        )
        with tf.control_dependencies(checks):
            means = self.exchange(given, parameters, learning_rate)
        for i in shared:
            results[i] = means[names[i]]
        return results

    def _agree(self, own: Sequence[str]) -> None:
        """Agree on names with a checkpoint and the other ranks, where they differ in Keras's numbers only.

        Plans, random numbers and collectives follow the names.

        Raises:
            RankDisagreementError: ranks differ in what `tell` was told.
        """
        here = own
        if len(self._file_names) == len(own):
            own = self._file_names
        elif differ_in_numbers_only(own, self.saved_names.names):
            own = self.saved_names.names
        if self._process_set.size() > 1:
            number = _agreed[self._process_set.process_set_id]
            _agreed[self._process_set.process_set_id] += 1
            item = tuple(own), self._wrapper.value
            name = f"hvd_compress.tensorflow.names.{number}"
            everyone = HorovodTransport(self._process_set).gather_objects(item, name)
            first, told = everyone[0]
            for rank, (_, other) in enumerate(everyone):
                for setting in (s for s in told if other.get(s) != told[s]):
                    raise RankDisagreementError(
                        f"Rank 0 has {setting}={told[setting]!r}, rank {rank} has {setting}={other.get(setting)!r}; "
                        "give every rank the same."
                    )
            if differ_in_numbers_only(own, first):
                own = first
        self._agreed_names = Untracked(dict(zip(here, own, strict=True)))
        self.saved_names.settle(tuple(own))

    def _renamed(self, names: Sequence[str]) -> list[str]:
        """Return the names that were agreed on; a variable that had no gradient then gets none of those."""
        agreed = self._agreed_names.value
        taken = set(agreed.values())
        return [agreed.get(name, f"{name} (new)" if name in taken else name) for name in names]

    def _make(self, given: Mapping[str, Gradient], groups: Sequence[Sequence[str]]) -> None:
        """Make the exchange; take over the state of a checkpoint that waits for it.

        Also where this rank has no gradient at all: other ranks, which may have some, must not wait for it.
        """
        made = GradientExchange(given, self.compressor, self._settings, self._process_set, groups, *self._devices)
        waiting, problem = self._waiting, None
        with tf.init_scope():
            try:
                self.exchange = made  # what a tf.train.Checkpoint holds is restored here
                if waiting is not None:
                    problem = waiting.problem_for(made)
            except (ValueError, tf.errors.OpError) as error:
                problem = f"The saved compression state cannot be restored: {error}"
        step = None if waiting is None else waiting.step
        try:
            left_out = made.check_restored(problem, step, self._required)
        except ConfigurationError as error:
            self._refusal = str(error)
            raise
        if left_out is not None:
            warnings.warn(
                f"{left_out} It was loaded with the weights and is left out: residuals start at zero.",
                UserWarning,
                stacklevel=2,
            )
        elif waiting is not None:
            with tf.init_scope():
                waiting.restore(made)
        self._groups, self._waiting = Untracked(None), None

    def _shaped(self, gradient: Gradient, variable: Variable) -> Gradient:
        """Return the gradient with a shape that is known when a graph is built."""
        if isinstance(gradient, tf.IndexedSlices):
            return sparse.dense(gradient, variable.shape) if self._settings.sparse_as_dense else gradient
        return gradient if gradient.shape.is_fully_defined() else tf.ensure_shape(gradient, variable.shape)

    def _own(self, gradient: Gradient | None, variable: Variable) -> Gradient | None:
        """Return the gradient of a local variable as it is applied."""
        if gradient is None or identity(variable) not in self._local or not self._scale_local_gradients:
            return gradient
        if isinstance(gradient, tf.IndexedSlices):
            return sparse.divided(gradient, self._process_set.size())
        return gradient / tf.cast(self._process_set.size(), gradient.dtype)

    def _group_names(self, variables: Sequence[Variable], names: Sequence[str]) -> list[list[str]]:
        """Return the groups by name: so many consecutive parts of the variables, or those that were listed."""
        groups = self._groups.value
        if not groups:
            return []
        if isinstance(groups, int):
            size = -(-len(names) // groups)
            return [list(names[i : i + size]) for i in range(0, len(names), size)]
        name_of = {identity(v): name for v, name in zip(variables, names, strict=True)}
        return [[name_of[identity(v)] for v in group if identity(v) in name_of] for group in groups]


def check_groups(groups: Any) -> None:
    """Raise if groups are neither a number nor lists of variables.

    Raises:
        ConfigurationError: they are not.
    """
    number = groups is None or (isinstance(groups, int) and not isinstance(groups, bool) and groups >= 0)
    if not number and not (isinstance(groups, (list, tuple)) and all(isinstance(g, (list, tuple)) for g in groups)):
        raise ConfigurationError(f"groups={groups!r}: give a number of at least 0, or a list of lists of variables.")
    for variable in () if number else (v for group in groups for v in group):
        identity(variable)


def compressor_of(compression: Any) -> Operator | Codec:
    """Return the compressor that a user asked for; None and Horovod's own `Compression.none` are a plain average."""
    return Identity() if compression in (None, stock.Compression.none) else resolve(compression)
