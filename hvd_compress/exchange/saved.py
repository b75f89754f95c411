"""State as it is saved and loaded: by unit and path; element-wise leaves of joined units by parameter besides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..contract import Array, Leaf, Scope, State, initial_state, walk
from ..errors import ConfigurationError
from ..operators.two_way import shards_of
from ..ops import ArrayOps, ops_of
from .joining import by_parameter, joined
from .units import Unit


def declared_leaves(unit: Unit, world_size: int) -> dict[str, Leaf]:
    """Return the declarations of the unit's state by path."""
    return dict(walk(unit.operator.leaves(unit.spec, world_size)))


def elementwise(leaf: Leaf, unit: Unit) -> bool:
    """Return whether a leaf holds one number for every element of the unit's gradient."""
    return leaf.scope is not Scope.SHARDED and leaf.shape == unit.spec.shape


def saved_leaves(unit: Unit, state: State, world_size: int) -> dict[str, Any]:
    """Return copies of a unit's leaves by path, those of several parameters by parameter."""
    declared = declared_leaves(unit, world_size)
    saved: dict[str, Any] = {}
    for path, array in walk(state):
        copied = ops_of(array).copy(array)
        several = len(unit.parameters) > 1 and elementwise(declared[path], unit)
        saved[path] = by_parameter(unit, copied) if several else copied
    return saved


def loaded_state(unit: Unit, saved: Mapping[str, Any], ops: ArrayOps, world_size: int) -> State:
    """Return the unit's state with every leaf replaced by the saved one, copied to this library and device.

    Raises:
        ConfigurationError: a leaf is missing or has another shape.
    """
    state = initial_state(unit.operator.leaves(unit.spec, world_size), ops, unit.name)
    return _filled(state, saved, ops, unit, "")


def _filled(state: State, saved: Mapping[str, Any], ops: ArrayOps, unit: Unit, prefix: str) -> State:
    filled: State = {}
    for key, value in state.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict):
            filled[key] = _filled(value, saved, ops, unit, f"{path}.")
            continue
        found = saved.get(path)
        if isinstance(found, Mapping):
            found = joined(unit, found, ops_of(next(iter(found.values()))))
        if found is None or ops_of(found).shape(found) != ops.shape(value):
            raise ConfigurationError(
                f"The saved compression state of {unit.name!r} has no {path!r} of the right shape."
            )
        filled[key] = ops.cast(ops.from_numpy(ops_of(found).to_numpy(found)), ops.dtype(value))
    return filled


def residuals(unit: Unit, state: State, world_size: int) -> dict[str, Array]:
    """Return what the unit still owes, by parameter: its element-wise leaves named "error", added up."""
    declared = declared_leaves(unit, world_size)
    owed: Array = None
    for path, array in walk(state):
        if path.split(".")[-1] == "error" and elementwise(declared[path], unit):
            owed = array if owed is None else ops_of(array).add_(ops_of(array).copy(owed), array)
    return {} if owed is None else by_parameter(unit, ops_of(owed).copy(owed))


def server_residuals(unit: Unit, state: State, world_size: int, rank: int) -> dict[str, Array]:
    """Return what this rank owes as the server of a shard, as gradients: the mean over ranks is what servers hold."""
    declared = declared_leaves(unit, world_size)
    shards = shards_of(unit.spec, world_size)
    owed: Array = None
    for path, array in walk(state):
        leaf = declared[path]
        if path.split(".")[-1] != "server" or leaf.scope is not Scope.SHARDED or leaf.shape != shards[0].shape:
            continue
        ops, before = ops_of(array), sum(shard.size for shard in shards[:rank])
        after = unit.spec.size - before - shards[rank].size
        pieces = [ops.zeros((before,), leaf.dtype), array[: shards[rank].size], ops.zeros((after,), leaf.dtype)]
        whole = ops.reshape(ops.scale_(ops.concat(pieces), float(world_size)), unit.spec.shape)
        owed = whole if owed is None else ops.add_(owed, whole)
    return {} if owed is None else by_parameter(unit, owed)


def with_residual(state: State, owed: Array, ops: ArrayOps, rate: float | None) -> bool:
    """Put what is owed into the first leaf named "error" of that shape; return whether there is one.

    Memories that follow the learning rate are told that it was this step's: at a first step they count for nothing.
    """
    for key, value in state.items():
        if isinstance(value, dict):
            if with_residual(value, owed, ops, rate):
                if "rate" in state:
                    state["rate"] = ops.zeros((1,), "float64") + (rate or 0.0)
                return True
        elif key == "error" and ops.shape(value) == ops.shape(owed):
            state[key] = ops.add_(value, ops.cast(owed, ops.dtype(value)))
            return True
    return False
