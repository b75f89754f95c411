"""GraphSimulator: W workers in lockstep inside one `tf.function`, with no communication library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from hvd_compress.contract import Codec, Operator
from hvd_compress.drivers.simulate import run_lockstep
from hvd_compress.exchange import Phases, Plan, make_plan, specs_of
from hvd_compress.registry import resolve
from hvd_compress.tensorflow.worker import GraphWorker, Moment

Tensors = dict[str, Any]


class GraphSimulator:
    """What `hvd_compress.Simulator` does, as operations of a graph that is built once for all steps.

    Args:
        compression: an instance, class, factory or name.
        world_size: number of workers, >= 1.
        learning_rate: of the coming steps, for methods that need it; may be assigned anew.
        parameters: the replicas' parameters by name, for methods that need them.
        allow_larger: compress also where that sends more than a plain average.
    """

    def __init__(
        self,
        compression: Any,
        world_size: int,
        *,
        learning_rate: float | None = None,
        parameters: Mapping[str, Any] | None = None,
        allow_larger: bool = False,
    ) -> None:
        self.compressor: Operator | Codec = resolve(compression)
        self.world_size = world_size
        self.learning_rate = learning_rate
        self.parameters = parameters
        self.workers: list[GraphWorker] = []
        self.traces = 0
        self.sent_bytes = 0
        self._started_at = 0
        # What one worker sends, by (first step of the phase, whether the update is applied): counted when it is built.
        self.bytes_by_way: dict[tuple[int, bool], int] = {}
        self._allow_larger = allow_larger
        self._given: Mapping[str, Any] = {}

    @property
    def plan(self) -> Plan:
        """The plan, known after the first step."""
        return self.workers[0].plan

    def step(self, gradients: Sequence[Mapping[str, Any]]) -> list[Tensors]:
        """Return, for each worker, the mean gradient by parameter name."""
        if not self.workers:
            self._make_workers(gradients[0])
        rate = None if not self._follows_rate else tf.constant(self.learning_rate, tf.float64)
        first = self.phases.first_steps[self.phases.number(int(self._step.numpy()))]
        means = self._function([dict(own) for own in gradients], dict(self.parameters or {}), rate)
        self.sent_bytes += self.bytes_by_way[first, self.learning_rate != 0 or rate is None]
        return [dict(own) for own in means]

    def move_to(self, step: int) -> None:
        """Make `step` the number of the next step, as if the ones before had been taken."""
        self._started_at = step
        if self.workers:
            self._step.assign(step)

    def leaves(self) -> list[dict[str, dict[str, Any]]]:
        """Return every worker's state variables, by parameter or unit and by path."""
        return [worker.state.variables_by_name for worker in self.workers]

    def _make_workers(self, gradients: Mapping[str, Any]) -> None:
        plan = make_plan(self.compressor, specs_of(gradients), self.world_size, allow_larger=self._allow_larger)
        self.phases = Phases.of(plan)
        self._follows_rate = any(unit.operator.needs_learning_rate for unit in plan.units)
        self._step = tf.Variable(self._started_at, dtype=tf.int64, trainable=False)
        self.workers = [
            GraphWorker(plan, rank, self.world_size, lambda name: self._given[name]) for rank in range(self.world_size)
        ]
        self._function = tf.function(self._exchange, autograph=False)

    def _exchange(self, gradients: list[Tensors], parameters: Tensors, rate: Any) -> list[Tensors]:
        self.traces += 1
        step = self._step.read_value()
        ways = [
            partial(self._built_for, gradients, parameters, Moment(step, first, rate, applied))
            for first in self.phases.first_steps
            for applied in ((True,) if rate is None else (True, False))
        ]
        means = tf.switch_case(self._way(step, rate), ways) if len(ways) > 1 else ways[0]()
        self._step.assign_add(1)
        return means

    def _built_for(self, gradients: list[Tensors], parameters: Tensors, moment: Moment) -> list[Tensors]:
        self._given = parameters
        before = self.workers[0].meter.sent_bytes
        means: list[Tensors] = [{} for _ in self.workers]
        for bucket in range(len(self.plan.buckets)):
            pairs = list(zip(self.workers, gradients, strict=True))
            exchanges = [worker.begin(bucket, own, moment) for worker, own in pairs]
            run_lockstep(exchanges, range(self.world_size))
            for worker, exchange, own in zip(self.workers, exchanges, means, strict=True):
                own.update(worker.finish(bucket, exchange))
        self.bytes_by_way[moment.phase_step, moment.applied] = self.workers[0].meter.sent_bytes - before
        return [{name: tf.identity(x) for name, x in own.items()} for own in means]

    def _way(self, step: Any, rate: Any) -> Any:
        number = tf.numpy_function(lambda now: np.int32(self.phases.number(int(now))), [step], tf.int32)
        number = tf.ensure_shape(number, ())
        return number if rate is None else 2 * number + tf.cast(tf.equal(rate, 0.0), tf.int32)
