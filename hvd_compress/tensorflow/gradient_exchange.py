"""GradientExchange: mean gradients of TensorFlow, in one function that any graph may contain.

The whole exchange, every round of every bucket, is operations of one `tf.function`. Where its steps are built
differently (a warm-up, alternating factors, a learning rate of 0), each way is a branch of a switch, and all ranks
take the same one. State is in variables made before the function is traced.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias, final

import horovod.tensorflow as stock
import numpy as np
import tensorflow as tf
from tensorflow.python.ops import control_flow_util

from ..contract import Codec, Operator, Spec
from ..drivers import LoopbackTransport, RoundTrip, Transport, complete
from ..drivers.settings import ExchangeSettings, check_scales
from ..errors import ConfigurationError, UsageError
from ..exchange import Phases, Plan, check_agreement, make_plan
from ..ops import in_numpy
from . import sparse
from .graph_optimizer import keep
from .origin import Origin
from .transport import HorovodTransport
from .untracked import Untracked
from .worker import GraphWorker, Moment

Gradient: TypeAlias = Any  # a tf.Tensor or tf.IndexedSlices

# Exchanges made so far in each process set; its ranks make them in the same order, so the number names them.
_made: Counter[int] = Counter()
_live: weakref.WeakSet[GradientExchange] = weakref.WeakSet()


def live_exchanges() -> list[GradientExchange]:
    """Return the exchanges that are still there, in the order in which they were made."""
    return sorted(_live, key=lambda exchange: exchange.number)


@final
class GradientExchange(tf.Module):
    """Exchanges gradients of one optimizer or tape among the ranks of a process set.

    Its variables, the step count among them, are what `tf.train.Checkpoint` saves of it.

    Args:
        gradients: by name of their variable, in order, as the exchange will get them; only shapes and element types
            are used, and which of them are `tf.IndexedSlices`.
        compressor: an instance.
        settings: equal on all ranks.
        process_set: Horovod's; this rank is in it.
        groups: names that travel in one bucket.
        device_dense: where collectives of dense gradients run; "" leaves it to TensorFlow.
        device_sparse: where collectives of `tf.IndexedSlices` run.

    Raises:
        RankDisagreementError: ranks differ in names, shapes, compressor or settings.
    """

    def __init__(
        self,
        gradients: Mapping[str, Gradient],
        compressor: Operator | Codec,
        settings: ExchangeSettings,
        process_set: Any,
        groups: Sequence[Sequence[str]] = (),
        device_dense: str = "",
        device_sparse: str = "",
    ) -> None:
        super().__init__(name="hvd_compress")
        check_scales(compressor, settings)
        self._settings = settings
        self._process_set = process_set
        self._devices = (device_dense, device_sparse)
        self._names = tuple(gradients)
        self._sparse = tuple(
            name
            for name, gradient in gradients.items()
            if isinstance(gradient, tf.IndexedSlices) and not settings.sparse_as_dense
        )
        self._alone = process_set.size() == 1
        self._plan = make_plan(
            compressor,
            [
                (name, spec_of(gradient))
                for name, gradient in reversed(list(gradients.items()))
                if name not in self._sparse
            ],
            process_set.size(),
            allow_larger=settings.allow_larger,
            bucket_bytes=settings.bucket_bytes,
            groups=groups,
            settings={**settings.as_text(), "sparse": self._sparse, "work in NumPy": in_numpy.allowed()},
        )
        self._prefix = self._check_plan()
        self._phases = Phases.of(self._plan)
        self._parameters: Mapping[str, tf.Tensor] = {}
        self._worker = GraphWorker(self._plan, process_set.rank(), process_set.size(), self._parameter_of)
        self.state = self._worker.state
        with tf.init_scope():
            self.step = tf.Variable(0, dtype=tf.int64, trainable=False, name="hvd_compress/step")
        self.origin = Origin(process_set.rank(), process_set.size(), self._plan)
        # A batch's number of embedding rows must not cost a trace of its own. Not put into the caller's graph, it also
        # keeps the optimiser from adding up chains of means, as for a norm, in an order that differs between ranks.
        traced = tf.function(
            self._exchange, autograph=False, reduce_retracing=True, experimental_attributes={"_noinline": True}
        )
        # A SavedModel would contain it, and with it operations that only Horovod can load.
        self._function = Untracked(traced)
        _live.add(self)

    @property
    def plan(self) -> Plan:
        """How every gradient travels; equal on all ranks."""
        return self._plan

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the variables whose gradients are exchanged, in order."""
        return self._names

    @property
    def prefix(self) -> str:
        """What the names of its collectives begin with."""
        return self._prefix

    @property
    def needs_learning_rate(self) -> bool:
        """Whether the exchange must be told the learning rate."""
        return any(unit.operator.needs_learning_rate for unit in self._plan.units)

    def __call__(
        self,
        gradients: Mapping[str, Gradient],
        parameters: Mapping[str, Any],
        learning_rate: Any = None,
    ) -> dict[str, Gradient]:
        """Return the mean gradients, by name; all ranks call it at the same step.

        Args:
            gradients: by name: all those that the exchange was made for.
            parameters: by name, the variables or their values; not changed before the gradients are applied.
            learning_rate: a number, tensor or variable; needed where `needs_learning_rate`.

        Raises:
            ConfigurationError: the exchange would become part of a function that XLA compiles; or the learning rate
                is needed and missing.
            UsageError: other variables have gradients than those the exchange was made for.
        """
        check_not_compiled()
        self.check_names(gradients)
        rate = None
        if self.needs_learning_rate:
            if learning_rate is None:
                raise ConfigurationError(
                    f"{self._plan.compressor!r} follows the learning rate, which is not known here; pass "
                    "learning_rate=... (the optimizer's), or leave it out of the compressor (follow_step_size=False)."
                )
            rate = tf.cast(learning_rate, tf.float64)
        values = {name: tf.convert_to_tensor(parameters[name]) for name in self._names}
        return dict(self._function.value({name: gradients[name] for name in self._names}, values, rate))

    def check_names(self, gradients: Mapping[str, Gradient]) -> None:
        """Raise if gradients are not those that the exchange was made for.

        Raises:
            UsageError: one is new or missing, or is no longer `tf.IndexedSlices`.
        """
        if set(gradients) != set(self._names):
            other = sorted(set(gradients) ^ set(self._names))
            raise UsageError(
                f"The gradients of {other} are new or missing since the first step; exchange the same variables at "
                "every step, and make a new optimizer or tape wrapper when they change."
            )
        for name in self._sparse:
            if not isinstance(gradients[name], tf.IndexedSlices):
                raise UsageError(
                    f"The gradient of {name!r} was tf.IndexedSlices at the first step and is dense now; pass "
                    "sparse_as_dense=True where it is now one and now the other."
                )

    def check_restored(self, problem: str | None, step: int | None, required: bool) -> str | None:
        """Find out, on every rank, whether some rank's state comes from a checkpoint that it cannot go on from.

        Args:
            problem: what is wrong with this rank's, if anything is.
            step: what the state that is to be restored has done; None where nothing waits for that.
            required: whether this rank insists on it.

        Returns:
            What is wrong, where no rank insists on its state; None where all can go on.

        Raises:
            ConfigurationError: the first such rank's problem, or that ranks have done different numbers of steps.
        """
        self.origin.settle()
        with tf.init_scope():
            done = int(self.step.numpy()) if step is None else step
        problem = self.origin.problem or problem
        told = [(problem, done, required and (problem is not None or done > 0))]
        if not self._alone:
            told = HorovodTransport(self._process_set).gather_objects(told[0], f"{self._prefix}.restored")
        found = next((f"Rank {rank}: {other}" for rank, (other, _, _) in enumerate(told) if other is not None), None)
        other = next((rank for rank, (_, done, _) in enumerate(told) if done != told[0][1]), None)
        if found is None and other is not None:
            found = (
                f"The compression state of rank 0 is that of step {told[0][1]}, that of rank {other} of step "
                f"{told[other][1]}; restore checkpoints of the same step on all ranks."
            )
        if found is not None and any(insists for _, _, insists in told):
            raise ConfigurationError(found)
        return found

    @property
    def process_set_id(self) -> int:
        """Horovod's number of the process set."""
        return int(self._process_set.process_set_id)

    @property
    def gathers_rows(self) -> bool:
        """Whether some gradients are `tf.IndexedSlices` that stay so."""
        return bool(self._sparse)

    @property
    def checks_replicas(self) -> bool:
        """Whether variables are compared again after the second step."""
        return self._settings.check_replicas_every > 0

    def follow(self, rank: int) -> None:
        """Take over the step count and the replicated state of one rank: others have joined earlier than it."""
        if self._alone:
            return
        name = f"{self._prefix}.follow"
        for number, variable in enumerate([self.step, *self.state.replicated()]):
            variable.assign(stock.broadcast(variable, rank, name=f"{name}.{number}", process_set=self._process_set))

    # --- in the graph ---

    def _exchange(
        self, gradients: Mapping[str, Gradient], parameters: Mapping[str, tf.Tensor], rate: tf.Tensor | None
    ) -> dict[str, Gradient]:
        step = self.step.read_value()
        dense = {name: self._before(g) for name, g in gradients.items() if name not in self._sparse}
        ways = [
            partial(self._built_for, dense, parameters, Moment(step, first, rate, applied))
            for first in self._phases.first_steps
            for applied in ((True,) if rate is None else (True, False))
        ]
        means = ways[0]() if len(ways) == 1 else tf.switch_case(self._way(step, rate), ways)
        means = {name: self._after(mean) for name, mean in means.items()}
        for number, name in enumerate(self._sparse):
            means[name] = self._gathered(f"sparse{number}", gradients[name])
        self.step.assign_add(1)
        return {name: means[name] for name in self._names}

    def _built_for(
        self, gradients: Mapping[str, tf.Tensor], parameters: Mapping[str, tf.Tensor], moment: Moment
    ) -> dict[str, tf.Tensor]:
        """Return the means, by operations that serve all steps of one phase."""
        self._parameters = parameters
        transport: Transport = (
            LoopbackTransport() if self._alone else HorovodTransport(self._process_set, self._devices[0])
        )
        # Names do not tell the phase: should ranks ever be in different ones, Horovod sees shapes that do not match
        # and ends all of them, where different names would wait for one another.
        trips = [
            RoundTrip(
                self._worker.begin(bucket, gradients, moment),
                transport,
                f"{self._prefix}.bucket{bucket}",
                self._worker.meter,
            )
            for bucket in range(len(self._plan.buckets))
        ]
        complete(trips)
        # Every collective runs on every rank, also one whose result some rank has no use for.
        if isinstance(transport, HorovodTransport):
            keep(transport.results)
        means: dict[str, tf.Tensor] = {}
        for bucket, trip in enumerate(trips):
            means.update(self._worker.finish(bucket, trip.exchange))
        return {name: tf.identity(mean) for name, mean in means.items()}

    def _way(self, step: tf.Tensor, rate: tf.Tensor | None) -> tf.Tensor:
        """Return the number of the branch for this step."""
        number = tf.constant(0, tf.int32)
        if len(self._phases.first_steps) > 1:
            phases = self._phases  # TensorFlow keeps such functions for good: they must not keep this exchange
            number = tf.numpy_function(lambda now: np.int32(phases.number(int(now))), [step], tf.int32)
            number = tf.ensure_shape(number, ())
        return number if rate is None else 2 * number + tf.cast(tf.equal(rate, 0.0), tf.int32)

    def _before(self, gradient: Gradient) -> tf.Tensor:
        """Return this rank's gradient as it enters the exchange."""
        gradient = tf.convert_to_tensor(gradient)
        factor = self._settings.gradient_predivide_factor
        return gradient if factor == 1.0 else gradient / tf.cast(factor, gradient.dtype)

    def _after(self, mean: tf.Tensor) -> tf.Tensor:
        factor = self._settings.gradient_predivide_factor
        if not self._settings.average:
            factor = float(self._process_set.size())
        return mean if factor == 1.0 else mean * tf.cast(factor, mean.dtype)

    def _gathered(self, name: str, gradient: tf.IndexedSlices) -> tf.IndexedSlices:
        if self._alone:
            return gradient
        with tf.device(self._devices[1]):
            return sparse.gathered(gradient, f"{self._prefix}.{name}", self._settings.average, self._process_set)

    # --- outside ---

    def _parameter_of(self, name: str) -> tf.Tensor:
        return self._parameters[name]

    def _check_plan(self) -> str:
        """Compare plans across ranks; return the prefix of this exchange's collectives."""
        self.number = _made[self._process_set.process_set_id]
        _made[self._process_set.process_set_id] += 1
        prefix = f"hvd_compress.tensorflow.{self.number}"
        if not self._alone:
            transport = HorovodTransport(self._process_set)
            check_agreement(self._plan, lambda item: transport.gather_objects(item, f"{prefix}.plan"))
        return prefix


def spec_of(gradient: Gradient) -> Spec:
    """Return the spec of a gradient; its outputs are on the last axis.

    Raises:
        ConfigurationError: its shape is not known before it is computed.
    """
    if not gradient.shape.is_fully_defined():
        raise ConfigurationError(
            f"A gradient of shape {gradient.shape} cannot be planned; give variables fixed shapes."
        )
    return Spec(tuple(gradient.shape), gradient.dtype.name, -1)


def check_not_compiled() -> None:
    """Raise if what is built now is part of a function that XLA compiles.

    Raises:
        ConfigurationError: it is.
    """
    if not tf.executing_eagerly() and control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()):
        raise ConfigurationError(
            "XLA cannot compile collectives: pass jit_compile=False to model.compile() or tf.function()."
        )
