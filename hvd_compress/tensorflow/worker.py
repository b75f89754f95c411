"""GraphWorker: one rank's side of the exchange, built once into a graph that serves many steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

import tensorflow as tf

from ..contract import Context
from ..exchange import BucketExchange, Meter, Plan, Unit
from ..exchange.joining import by_parameter, joined, unit_gradient
from ..exchange.small_units import SmallUnits, small_units
from ..ops import ops_of
from .variables import StateVariables


@final
@dataclass(frozen=True)
class Moment:
    """When an exchange happens: numbers that a graph computes with, and decisions that it is built by.

    Args:
        step: 0-D int64.
        phase_step: a step of the same phase, as a number.
        learning_rate: 0-D float64; None where none is known.
        applied: whether the learning rate is not 0.
    """

    step: tf.Tensor
    phase_step: int
    learning_rate: tf.Tensor | None
    applied: bool


@final
class GraphWorker:
    """Holds one rank's plan and state, and turns gradients into bucket exchanges.

    Args:
        plan: equal on all ranks.
        rank: this worker.
        world_size: number of workers.
        parameter: returns the parameter of a name, as a tensor.
    """

    def __init__(
        self,
        plan: Plan,
        rank: int,
        world_size: int,
        parameter: Callable[[str], tf.Tensor],
    ) -> None:
        self.plan = plan
        self.rank = rank
        self.world_size = world_size
        self.meter = Meter()
        self.state = StateVariables(plan.units, world_size)
        self._parameter = parameter

    def begin(self, bucket: int, gradients: Mapping[str, tf.Tensor], moment: Moment) -> BucketExchange:
        """Start the exchange of one bucket; gradients are by parameter name."""
        small = self._small(bucket)
        together = {unit.name for group in small for unit in group.units}
        exchanges, sizes = {}, {}
        for group in small:
            ((_, grad, ops),) = group.join([unit_gradient(unit, gradients) for unit in group.units])
            where = (ops, group.spec, group.name, moment.step, self.rank, self.world_size)
            context = Context(*where, phase_step=moment.phase_step)
            exchanges[group.name] = (group.operator.exchange(grad, {}, context), ops)
            sizes[group.name] = group.sizes
        for unit in self._units(bucket):
            if unit.name in together:
                continue
            grad, ops = unit_gradient(unit, gradients)
            context = Context(
                ops,
                unit.spec,
                unit.name,
                moment.step,
                self.rank,
                self.world_size,
                learning_rate=moment.learning_rate,
                applied=moment.applied,
                parameter=self._unit_parameter(unit) if unit.operator.needs_parameters else None,
                phase_step=moment.phase_step,
            )
            exchanges[unit.name] = (unit.operator.exchange(grad, self.state.read(unit), context), ops)
        return BucketExchange(exchanges, self.world_size, self.meter, sizes, self.plan.apart_bytes)

    def finish(self, bucket: int, exchange: BucketExchange) -> dict[str, tf.Tensor]:
        """Keep the new state of a done bucket and return the mean gradients by parameter name."""
        means: dict[str, tf.Tensor] = {}
        for group in self._small(bucket):
            mean = exchange.outcomes[group.name].mean
            means.update(group.split(mean, ops_of(mean)))
        for unit in self._units(bucket):
            if unit.name not in exchange.outcomes:
                continue
            outcome = exchange.outcomes[unit.name]
            self.state.write(unit, outcome.state)
            means.update(by_parameter(unit, outcome.mean))
        return means

    def _small(self, bucket: int) -> list[SmallUnits]:
        # In a graph, what is remembered is in variables of its own for every unit.
        return [group for group in small_units(self._units(bucket)) if not group.remembers]

    def _units(self, bucket: int) -> list[Unit]:
        return [self.plan.units[i] for i in self.plan.buckets[bucket]]

    def _unit_parameter(self, unit: Unit) -> tf.Tensor:
        found = {name: self._parameter(name) for name, _ in unit.parameters}
        return joined(unit, found, ops_of(next(iter(found.values()))))
