"""Worker: one rank's side of the exchange, whatever carries the collectives."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, final, get_args

from ..contract import Array, Context, Exchange, Scope, State, initial_state
from ..errors import ConfigurationError, UsageError
from ..operators import dense_operator
from ..ops import ArrayOps, ops_of
from .bucket import BucketExchange
from .joining import by_parameter, joined, unit_gradient
from .meter import Meter
from .plan import Plan
from .saved import declared_leaves, residuals, server_residuals, with_residual
from .small_units import SmallUnits, small_units
from .states import UnitStates, copied, initial_leaves
from .units import Unit

STATE_VERSION = 3
# What becomes of residuals when the compressor changes.
Residual = Literal["keep", "flush", "drop"]


@final
class Worker:
    """Holds one rank's plan, state and step count, and turns gradients into bucket exchanges.

    Args:
        plan: equal on all ranks.
        rank: this worker.
        world_size: number of workers.
        learning_rate: returns the live optimizer's learning rate for a parameter name; None where there is none.
        parameter: returns the parameter of a name; None where the driver knows none.
    """

    def __init__(
        self,
        plan: Plan,
        rank: int,
        world_size: int,
        learning_rate: Callable[[str], float | None] = lambda name: None,
        parameter: Callable[[str], Array | None] = lambda name: None,
    ) -> None:
        self.plan = plan
        self.rank = rank
        self.world_size = world_size
        self.meter = Meter()
        self.step = 0
        self._learning_rate = learning_rate
        self._parameter = parameter
        self._states = UnitStates(world_size)
        self._owed: dict[str, Array] = {}
        self._flushing = False
        self._flushed: set[str] = set()
        self._since = 0  # the step from which the plan's operators keep state
        self._out: dict[int, list[SmallUnits]] = {}
        self._small_units: dict[int, list[SmallUnits]] = {}

    def begin(self, bucket: int, gradients: Mapping[str, Array]) -> BucketExchange:
        """Start the exchange of one bucket at this step.

        Args:
            bucket: position in `plan.buckets`; once a step each.
            gradients: by parameter name, at least those of this bucket; donated.

        Raises:
            UsageError: the bucket was started already at this step.
            ConfigurationError: a gradient is missing, or its shape or element type is not the planned one.
        """
        if bucket in self._out:
            raise UsageError(f"Bucket {bucket} was started already at step {self.step}; finish the step first.")
        began = time.perf_counter()
        exchanges, sizes = {}, {}
        taken: list[SmallUnits] = []
        groups = self._small(bucket)
        together = {unit.name for group in groups for unit in group.units}
        for i in self.plan.buckets[bucket]:
            unit = self.plan.units[i]
            if unit.name not in together:
                grad, ops = unit_gradient(unit, gradients)
                exchanges[unit.name] = (self._exchange_of(unit, grad, ops), ops)
        for group in groups:
            found = (self._with_owed(unit, *unit_gradient(unit, gradients)) for unit in group.units)
            for units, flat, ops in group.join(list(found)):
                context = Context(ops, units.spec, units.name, self.step, self.rank, self.world_size)
                state = self._states.take_together(units, ops)
                exchanges[units.name] = (units.operator.exchange(flat, state, context), ops)
                sizes[units.name] = units.sizes
                taken.append(units)
        self.meter.compress_seconds += time.perf_counter() - began
        started = BucketExchange(exchanges, self.world_size, self.meter, sizes, self.plan.apart_bytes)
        self._out[bucket] = taken
        return started

    def _small(self, bucket: int) -> list[SmallUnits]:
        """Return the units that are exchanged as one at this step, the same on all ranks."""
        if self._flushing:
            return []
        if bucket not in self._small_units:
            self._small_units[bucket] = small_units([self.plan.units[i] for i in self.plan.buckets[bucket]])
        groups = self._small_units[bucket]
        # What is owed may enter what a unit remembers, or go around it: each for itself.
        return [group for all_of in groups for group in all_of.without(self._owed)] if self._owed else groups

    def _with_owed(self, unit: Unit, grad: Array, ops: ArrayOps) -> tuple[Array, ArrayOps]:
        """Return the gradient of a unit without memory, with what is owed of it."""
        owed = self._taken_owed(unit, ops)
        return (grad if owed is None else ops.add_(grad, ops.cast(owed, ops.dtype(grad)))), ops

    def _taken_owed(self, unit: Unit, ops: ArrayOps) -> Array | None:
        """Return what is owed of a unit, in its shape and in wide numbers, and forget it; None where it is nothing."""
        owed = [self._owed.pop(name, None) for name, _ in unit.parameters]
        if all(x is None for x in owed):
            return None
        zeros = (ops.zeros(spec.shape, spec.wide.dtype) for _, spec in unit.parameters)
        arrays = (z if x is None else _moved(x, ops, ops.dtype(z)) for x, z in zip(owed, zeros, strict=True))
        return joined(unit, {name: x for (name, _), x in zip(unit.parameters, arrays, strict=True)}, ops)

    def _exchange_of(self, unit: Unit, grad: Array, ops: ArrayOps) -> Exchange:
        owed = self._taken_owed(unit, ops)
        flushing, rate = self._flushing, self._learning_rate(unit.parameters[0][0])
        state: State = {} if flushing else self._states.take(unit, ops)
        if owed is not None and (flushing or not with_residual(state, owed, ops, rate)):
            # Momentum would send what is owed again and again: it goes around it.
            flushing = flushing or unit.operator.has_momentum
            grad = ops.add_(grad, ops.cast(owed, ops.dtype(grad)))
        if flushing:
            self._flushed.add(unit.name)
            if state:
                self._states.keep(unit, state)
        operator = dense_operator(unit.spec) if flushing else unit.operator
        parameter = self._unit_parameter(unit, ops) if operator.needs_parameters else None
        where = (ops, unit.spec, unit.name, self.step, self.rank, self.world_size)
        context = Context(*where, learning_rate=rate, applied=rate != 0, parameter=parameter)
        return operator.exchange(grad, state, context)

    def _unit_parameter(self, unit: Unit, ops: ArrayOps) -> Array | None:
        found = {name: self._parameter(name) for name, _ in unit.parameters}
        return None if any(x is None for x in found.values()) else joined(unit, found, ops)

    def finish(self, bucket: int, exchange: BucketExchange) -> dict[str, Array]:
        """Keep the new state of a done bucket and return the mean gradients by parameter name."""
        began = time.perf_counter()
        means: dict[str, Array] = {}
        for group in self._out[bucket]:
            outcome = exchange.outcomes[group.name]
            self._states.keep_together(group, outcome.state)
            means.update(group.split(outcome.mean, ops_of(outcome.mean)))
        for i in self.plan.buckets[bucket]:
            unit = self.plan.units[i]
            if unit.name not in exchange.outcomes:
                continue
            outcome = exchange.outcomes[unit.name]
            if unit.name not in self._flushed:
                self._states.keep(unit, outcome.state)
            means.update(by_parameter(unit, outcome.mean))
        self.meter.compress_seconds += time.perf_counter() - began
        return means

    def replan(self, plan: Plan, residual: Residual) -> None:
        """Go on with another plan for the same parameters, between two steps; all state but residuals is made anew.

        Args:
            plan: equal on all ranks.
            residual: what becomes of what was not sent yet. "keep": it enters the new compressor's memory or, where
                there is none, the next gradient. "flush": it is added to the next gradient, and that whole step
                travels dense. "drop": it is lost.

        Raises:
            ConfigurationError: `residual` is none of these.
            UsageError: a step is under way.
        """
        if residual not in get_args(Residual):
            raise ConfigurationError(f"residual={residual!r}: give 'keep', 'flush' or 'drop'.")
        if self._out:
            raise UsageError(
                "The compressor cannot be changed while gradients are on their way; finish the step first."
            )
        owed = {**self._owed, **self._residuals()} if residual != "drop" else {}
        self._states.clear()
        self.plan, self._small_units = plan, {}
        self._owed, self._flushing = owed, residual == "flush"
        self._since = self.step + self._flushing

    def _residuals(self) -> dict[str, Array]:
        found: dict[str, Array] = {}
        for unit in self.plan.units:
            state = self._states.of(unit)
            if not state:
                continue
            found.update(residuals(unit, state, self.world_size))
            for name, owed in server_residuals(unit, state, self.world_size, self.rank).items():
                ops = ops_of(owed)
                found[name] = ops.add_(owed, found[name]) if name in found else owed
        return found

    def memories(self) -> dict[str, Array]:
        """Return copies of this rank's residuals by parameter name: zeros before the first step."""
        found: dict[str, Array] = {}
        for unit in self.plan.units:
            state = self._states.of(unit)
            parameter = self._parameter(unit.parameters[0][0]) if state is None else None
            if parameter is not None:
                leaves = unit.operator.leaves(unit.spec, self.world_size)
                state = initial_state(leaves, ops_of(parameter), unit.name)
            found.update(residuals(unit, state, self.world_size) if state else {})
        return found

    def end_step(self) -> None:
        """Close the step: all buckets are finished."""
        self._out.clear()
        self._flushing = False
        self._flushed.clear()
        self.step += 1
        self.meter.steps += 1

    def state_dict(self) -> dict[str, Any]:
        """Return this rank's state: arrays by unit name and leaf path, and what is needed to check that it fits."""
        units = {
            unit.name: {
                "shape": list(unit.spec.shape),
                "parameters": [name for name, _ in unit.parameters],
                "operator": repr(unit.operator),
                "leaves": self._states.saved_leaves(unit),
            }
            for unit in self.plan.units
        }
        return {
            "version": STATE_VERSION,
            "compressor": repr(self.plan.compressor),
            "world_size": self.world_size,
            "rank": self.rank,
            "step": self.step,
            "units": units,
            "owed": {name: ops_of(x).copy(x) for name, x in self._owed.items()},
            "flushing": self._flushing,
            "since": self._since,
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take over a state that `state_dict` returned on this rank.

        Raises:
            ConfigurationError: it is of another compressor, world size, rank or model.
        """
        self._check_fits(saved)
        self.step = int(saved["step"])
        self._states.clear()
        units = saved["units"].items()
        self._states.load({name: copied(unit["leaves"]) for name, unit in units if unit["leaves"]})
        self._owed = copied(saved["owed"])
        self._flushing = bool(saved["flushing"])
        self._since = int(saved["since"])

    def replicated(self) -> tuple[int, bool, dict[str, dict[str, Any]]]:
        """Return what is equal on all ranks: the step count, whether the next step flushes, and the leaves.

        Leaves are NumPy arrays by unit and path.
        """
        found: dict[str, dict[str, Any]] = {}
        for unit in self.plan.units:
            declared = declared_leaves(unit, self.world_size)
            leaves = self._states.saved_leaves(unit)
            found[unit.name] = {
                path: _as_numpy(x) for path, x in leaves.items() if declared[path].scope is Scope.REPLICATED
            }
        return self.step, self._flushing, found

    def adopt(self, step: int, flushing: bool, replicated: Mapping[str, Mapping[str, Any]]) -> None:
        """Take over what `replicated` returned on another rank; local leaves stay this rank's own."""
        found: dict[str, dict[str, Any]] = {}
        for unit in self.plan.units:
            if replicated[unit.name]:
                # A rank that has not taken part yet has no leaves of its own: they are as before the first step.
                fresh = initial_leaves(unit, replicated[unit.name], self.world_size)
                own = self._states.saved_leaves(unit) or fresh
                found[unit.name] = {**own, **replicated[unit.name]}
        self._states.load(found)
        self.step, self._flushing = step, flushing

    def _check_fits(self, saved: Mapping[str, Any]) -> None:
        own = {
            "version": STATE_VERSION,
            "compressor": repr(self.plan.compressor),
            "world_size": self.world_size,
            "rank": self.rank,
        }
        for name, value in own.items():
            if saved.get(name) != value:
                raise ConfigurationError(
                    f"The saved compression state has {name} {saved.get(name)!r}, this run has {value!r}; load what "
                    "this rank saved in a run with the same settings, or start without it."
                )
        planned_names = [[name for name, _ in unit.parameters] for unit in self.plan.units]
        found_names = [list(unit["parameters"]) for unit in saved["units"].values()]
        same_parameters = {name for unit in planned_names for name in unit} == {n for unit in found_names for n in unit}
        if same_parameters and sorted(planned_names) != sorted(found_names):
            raise ConfigurationError(
                f"The saved compression state is of {len(found_names)} units of the same parameters, this run has "
                f"{len(planned_names)} others; give the optimizer the same parameter groups, devices and order of "
                "parameters as then: they decide which tensors are joined."
            )
        planned = {unit.name: list(unit.spec.shape) for unit in self.plan.units}
        found = {name: list(unit["shape"]) for name, unit in saved["units"].items()}
        for name in sorted(planned.keys() | found.keys()):
            if planned.get(name) != found.get(name):
                raise ConfigurationError(
                    f"The saved compression state has shape {found.get(name)} for {name!r}, this model has "
                    f"{planned.get(name)}; load the state of the same model."
                )
        for unit in self.plan.units:
            if saved["step"] > saved["since"] and not saved["units"][unit.name]["leaves"] and self._remembers(unit):
                raise ConfigurationError(
                    f"The saved compression state of {unit.name!r} is empty; load one that was saved between two steps."
                )

    def _remembers(self, unit: Unit) -> bool:
        return bool(declared_leaves(unit, self.world_size))


def _moved(array: Array, ops: ArrayOps, dtype: str) -> Array:
    """Return an array, that may have been loaded from a file, in the library and on the device of `ops`."""
    return ops.cast(array if ops_of(array) == ops else ops.from_numpy(ops_of(array).to_numpy(array)), dtype)


def _as_numpy(saved: Any) -> Any:
    if isinstance(saved, Mapping):
        return {name: _as_numpy(x) for name, x in saved.items()}
    return ops_of(saved).to_numpy(saved)
