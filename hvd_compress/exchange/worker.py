"""Worker: one rank's side of the exchange, whatever carries the collectives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

from ..contract import Array, Context, Scope, Spec, State, initial_state, walk
from ..errors import ConfigurationError, UsageError
from ..ops import ArrayOps, ops_of
from .bucket import BucketExchange
from .meter import Meter
from .plan import Plan, Unit

STATE_VERSION = 1


@final
class Worker:
    """Holds one rank's plan, state and step count, and turns gradients into bucket exchanges.

    Args:
        plan: equal on all ranks.
        rank: this worker.
        world_size: number of workers.
        learning_rate: returns the live optimizer's learning rate for a parameter name; None where there is none.
    """

    def __init__(
        self,
        plan: Plan,
        rank: int,
        world_size: int,
        learning_rate: Callable[[str], float | None] = lambda name: None,
    ) -> None:
        self.plan = plan
        self.rank = rank
        self.world_size = world_size
        self.meter = Meter()
        self.step = 0
        self._learning_rate = learning_rate
        self._states: dict[str, State] = {}
        self._loaded: dict[str, dict[str, Any]] = {}
        self._out: set[int] = set()

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
        exchanges = {}
        for i in self.plan.buckets[bucket]:
            unit = self.plan.units[i]
            grad, ops = _unit_gradient(unit, gradients)
            rate = self._learning_rate(unit.parameters[0][0])
            context = Context(ops, unit.spec, unit.name, self.step, self.rank, self.world_size, rate)
            state = self._take_state(unit, ops)
            exchanges[unit.name] = (unit.operator.exchange(grad, state, context), ops)
        self._out.add(bucket)
        return BucketExchange(exchanges, self.world_size, self.meter)

    def finish(self, bucket: int, exchange: BucketExchange) -> dict[str, Array]:
        """Keep the new state of a done bucket and return the mean gradients by parameter name."""
        means: dict[str, Array] = {}
        for i in self.plan.buckets[bucket]:
            unit = self.plan.units[i]
            outcome = exchange.outcomes[unit.name]
            self._states[unit.name] = outcome.state
            means.update(_parameter_gradients(unit, outcome.mean))
        return means

    def end_step(self) -> None:
        """Close the step: all buckets are finished."""
        self._out.clear()
        self.step += 1
        self.meter.steps += 1

    def state_dict(self) -> dict[str, Any]:
        """Return this rank's state: arrays by unit name and leaf path, and what is needed to check that it fits."""
        units = {
            unit.name: {
                "shape": list(unit.spec.shape),
                "operator": repr(unit.operator),
                "leaves": self._saved_leaves(unit.name),
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
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take over a state that `state_dict` returned on this rank.

        Raises:
            ConfigurationError: it is of another compressor, world size, rank or model.
        """
        self._check_fits(saved)
        self.step = int(saved["step"])
        self._states = {}
        self._loaded = {
            name: {path: ops_of(x).copy(x) for path, x in unit["leaves"].items()}
            for name, unit in saved["units"].items()
            if unit["leaves"]
        }

    def replicated(self) -> tuple[int, dict[str, dict[str, Any]]]:
        """Return the step count and the leaves that are equal on all ranks, as NumPy arrays by unit and path."""
        found: dict[str, dict[str, Any]] = {}
        for unit in self.plan.units:
            declared = dict(walk(unit.operator.leaves(unit.spec, self.world_size)))
            leaves = self._saved_leaves(unit.name)
            found[unit.name] = {
                path: ops_of(x).to_numpy(x) for path, x in leaves.items() if declared[path].scope is Scope.REPLICATED
            }
        return self.step, found

    def adopt(self, step: int, replicated: Mapping[str, Mapping[str, Any]]) -> None:
        """Take over what `replicated` returned on another rank; local leaves stay this rank's own."""
        self._loaded = {
            unit.name: {**self._saved_leaves(unit.name), **replicated[unit.name]}
            for unit in self.plan.units
            if replicated[unit.name]
        }
        for name in self._loaded:
            self._states.pop(name, None)
        self.step = step

    def _saved_leaves(self, unit: str) -> dict[str, Array]:
        if unit in self._loaded:
            return {path: ops_of(x).copy(x) for path, x in self._loaded[unit].items()}
        return {path: ops_of(x).copy(x) for path, x in walk(self._states.get(unit, {}))}

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
        planned = {unit.name: list(unit.spec.shape) for unit in self.plan.units}
        found = {name: list(unit["shape"]) for name, unit in saved["units"].items()}
        for name in sorted(planned.keys() | found.keys()):
            if planned.get(name) != found.get(name):
                raise ConfigurationError(
                    f"The saved compression state has shape {found.get(name)} for {name!r}, this model has "
                    f"{planned.get(name)}; load the state of the same model."
                )
        for unit in self.plan.units:
            if saved["step"] and not saved["units"][unit.name]["leaves"] and self._remembers(unit):
                raise ConfigurationError(
                    f"The saved compression state of {unit.name!r} is empty; load one that was saved between two steps."
                )

    def _remembers(self, unit: Unit) -> bool:
        return bool(unit.operator.leaves(unit.spec, self.world_size))

    def _take_state(self, unit: Unit, ops: ArrayOps) -> State:
        state = self._states.pop(unit.name, None)
        if state is not None:
            return state
        state = initial_state(unit.operator.leaves(unit.spec, self.world_size), ops, unit.name)
        loaded = self._loaded.pop(unit.name, {})
        return _with_leaves(state, loaded, ops, unit.name) if loaded else state


def _with_leaves(state: State, loaded: Mapping[str, Any], ops: ArrayOps, unit: str, prefix: str = "") -> State:
    """Return the state with every leaf replaced by the loaded one, copied to this device."""
    filled: State = {}
    for key, value in state.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict):
            filled[key] = _with_leaves(value, loaded, ops, unit, f"{path}.")
            continue
        found = loaded.get(path)
        if found is None or ops_of(found).shape(found) != ops.shape(value):
            raise ConfigurationError(f"The saved compression state of {unit!r} has no {path!r} of the right shape.")
        filled[key] = ops.cast(ops.from_numpy(ops_of(found).to_numpy(found)), ops.dtype(value))
    return filled


def _unit_gradient(unit: Unit, gradients: Mapping[str, Array]) -> tuple[Array, ArrayOps]:
    """Return the gradient that the unit's operator sees, from those of its parameters."""
    arrays = []
    for name, spec in unit.parameters:
        if name not in gradients:
            raise ConfigurationError(f"Gradient {name!r} is missing; give zeros for a parameter without gradient.")
        array = gradients[name]
        ops = ops_of(array)
        found = Spec(ops.shape(array), ops.dtype(array))
        if (found.shape, found.dtype) != (spec.shape, spec.dtype):
            raise ConfigurationError(
                f"Gradient {name!r} is {list(found.shape)} {found.dtype}, planned was {list(spec.shape)} {spec.dtype}; "
                "make a new exchange when the model changes."
            )
        arrays.append(array)
    ops = ops_of(arrays[0])
    if len(arrays) == 1:
        return ops.reshape(arrays[0], unit.spec.shape), ops
    return ops.concat([ops.flatten(array) for array in arrays]), ops


def _parameter_gradients(unit: Unit, mean: Array) -> dict[str, Array]:
    """Return the mean gradients of the unit's parameters, in their own shapes."""
    ops = ops_of(mean)
    if len(unit.parameters) == 1:
        name, spec = unit.parameters[0]
        return {name: ops.reshape(mean, spec.shape)}
    pieces = ops.split(mean, [spec.size for _, spec in unit.parameters])
    named = zip(unit.parameters, pieces, strict=True)
    return {name: ops.reshape(piece, spec.shape) for (name, spec), piece in named}
