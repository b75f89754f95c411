"""BroadcastGlobalVariablesCallback: all ranks start from the model of one of them."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias, final

import horovod.tensorflow as stock
import keras
import tensorflow as tf

from ...contract import Scope
from ...errors import ConfigurationError, RankDisagreementError
from ...exchange.saved import declared_leaves, elementwise
from ...tensorflow.fitting import nested_optimizers
from ...tensorflow.gradient_exchange import GradientExchange
from ...tensorflow.identity import identity
from .distributed import gradient_exchange_of
from .horovod_callback import HorovodCallback
from .synchronising import broadcast_variables, gather_objects

_NAME = "hvd_compress.keras.broadcast"
_Spec: TypeAlias = tuple[str, tuple[int, ...], str]  # name, shape, element type


@final
class BroadcastGlobalVariablesCallback(HorovodCallback):
    """Gives all ranks the weights, the optimizer variables and the shared compression state of one rank.

    What is there when training begins is equal before the first step; what the first batch brings (of a model or
    optimizer that is built lazily, on some ranks or on all) follows after that batch. Seeds of dropout and the like,
    states of metrics, and residuals stay each rank's own: equal seeds would drop the same units on every rank.

    Args:
        root_rank: whose values all ranks get; among all processes, in the optimizer's process set.
        device: that Horovod gets tensors from; "" leaves it to TensorFlow.
        local_variables: variables that stay each rank's own.

    Raises:
        ConfigurationError: an argument cannot be honoured; or a model is not built yet and does several steps in one
            execution.
        RankDisagreementError: ranks train models of different shapes.
    """

    def __init__(self, root_rank: int, device: str = "", local_variables: Any = None) -> None:
        super().__init__()
        self.root_rank = root_rank
        self.device = device
        self.broadcast_done = False
        self._local: dict[int, Any] = {}
        self._sent: set[int] = set()
        self._thread = 0
        for variable in _as_list(local_variables):
            self.register_local_var(variable)

    def register_local_var(self, var: Any) -> None:
        """Leave a variable to this rank.

        Args:
            var: a Keras or TensorFlow variable; all ranks register the same ones.

        Raises:
            ConfigurationError: it is no variable.
        """
        if not isinstance(var, (tf.Variable, keras.Variable)):
            raise ConfigurationError(f"{var!r} is not a variable; pass variables of Keras or TensorFlow.")
        self._local[identity(var)] = var  # kept, so that its id stays its own

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        if self.broadcast_done:
            return
        if not self.process_set.included():
            self.broadcast_done = True
            return
        ranks = list(self.process_set.ranks or range(stock.size()))
        if self.root_rank not in ranks:
            raise ConfigurationError(
                f"root_rank={self.root_rank!r} is not among the ranks that train together, {ranks}; give one of them."
            )
        self._thread = threading.get_ident()
        self._check_built()
        groups = self._groups()
        if self._agree(groups, "begin", raising=False):
            self._send(groups, "begin")
        else:
            # Accumulated gradients are exchanged at every so many steps: the count must be equal before the first one.
            common = [v for v in self._innermost_variables() if v.name in ("iteration", "learning_rate")]
            self._send({"common": common}, "begin")
            self._sent = set()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._complete()

    # Keras may run the ends of batches on a thread of its own, beside the next step: then these come first.

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        if batch > 0:
            self._complete()

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self._complete()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._complete()

    def _complete(self) -> None:
        """Send everything again if the first batch brought variables to any rank."""
        if self.broadcast_done or threading.get_ident() != self._thread:
            return
        groups = self._groups()
        new = any(identity(v) not in self._sent for variables in groups.values() for v in variables)
        if any(gather_objects(new, f"{_NAME}.new", self.process_set)):
            self._agree(groups, "again", raising=True)
            self._send(groups, "again")
        self.broadcast_done = True

    def _check_built(self) -> None:
        """Raise on all ranks if one would do several steps before its weights can be broadcast."""
        if self.process_set.size() == 1:
            return
        steps = int(self.model.steps_per_execution)
        everyone = gather_objects((bool(self.model.built), steps), f"{_NAME}.built", self.process_set)
        for rank, (built, steps) in enumerate(everyone):
            if not built and steps > 1:
                raise ConfigurationError(
                    f"Rank {rank}'s model has no weights yet, and with steps_per_execution={steps} it would do {steps} "
                    "steps before they are broadcast: build the model first (an Input layer, or model.build(...))."
                )

    def _groups(self) -> dict[str, list[Any]]:
        """Return what must be equal on all ranks, as far as it is there."""
        exchange = gradient_exchange_of(self.optimizer)
        own = set() if exchange is None else {identity(v) for v in exchange.variables}
        weights = [v for v in self.model.weights if identity(v) not in self._local]
        optimizer = [] if self.optimizer is None else [v for v in self.optimizer.variables if identity(v) not in own]
        return {
            "weights": weights,
            "optimizer variables": [v for v in optimizer if identity(v) not in self._local],
            "compression state": [] if exchange is None else replicated_variables(exchange, self.process_set.size()),
        }

    def _innermost_variables(self) -> list[Any]:
        return [] if self.optimizer is None else list(nested_optimizers(self.optimizer)[-1].variables)

    def _agree(self, groups: Mapping[str, Sequence[Any]], when: str, raising: bool) -> bool:
        """Return whether all ranks have variables of the same shapes and element types."""
        specs = {name: [_spec(v) for v in variables] for name, variables in groups.items()}
        everyone = gather_objects(specs, f"{_NAME}.{when}.specs", self.process_set)
        for rank, other in enumerate(everyone):
            for name, expected in everyone[0].items():
                if _shapes(other[name]) == _shapes(expected):
                    continue
                if raising:
                    raise RankDisagreementError(_difference(name, rank, other[name], expected))
                return False
        return True

    def _send(self, groups: Mapping[str, Sequence[Any]], when: str) -> None:
        variables = [v for group in groups.values() for v in group]
        with tf.device(self.device):
            broadcast_variables(variables, self.root_rank, f"{_NAME}.{when}", self.process_set)
        self._sent = {identity(v) for v in variables}


def replicated_variables(exchange: GradientExchange, world_size: int) -> list[tf.Variable]:
    """Return the state of an exchange that is equal on all ranks, in order."""
    found = [exchange.step]
    by_name = exchange.state.variables_by_name
    for unit in exchange.plan.units:
        for path, leaf in declared_leaves(unit, world_size).items():
            if leaf.scope is Scope.REPLICATED:
                names = [name for name, _ in unit.parameters] if elementwise(leaf, unit) else [unit.name]
                found += [by_name[name][path] for name in names]
    return found


def _as_list(variables: Any) -> list[Any]:
    if variables is None:
        return []
    if isinstance(variables, Iterable) and not isinstance(variables, (tf.Variable, keras.Variable)):
        return list(variables)
    return [variables]


def _spec(variable: Any) -> _Spec:
    value = variable if isinstance(variable, tf.Variable) else variable.value
    return str(getattr(variable, "path", variable.name)), tuple(value.shape), str(value.dtype.name)


def _shapes(specs: Sequence[_Spec]) -> list[tuple[tuple[int, ...], str]]:
    return [spec[1:] for spec in specs]


def _difference(what: str, rank: int, found: Sequence[_Spec], expected: Sequence[_Spec]) -> str:
    """Say where two ranks differ; names may, since Keras numbers the models that a process makes."""
    for left, right in zip(found, expected, strict=False):
        if left[1:] != right[1:]:
            return (
                f"Ranks 0 and {rank} differ in their {what}: {right[0]!r} is {right[2]} {list(right[1])} on rank 0, "
                f"and {left[0]!r} is {left[2]} {list(left[1])} on rank {rank}; build the same model on all ranks."
            )
    return (
        f"Ranks 0 and {rank} differ in their {what}: rank 0 has {len(expected)}, rank {rank} has {len(found)}; build "
        "the same model on all ranks."
    )
