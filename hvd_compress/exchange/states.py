"""UnitStates: what this rank remembers of every unit, by itself or together with others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, final

from ..contract import Array, State, initial_state, walk
from ..ops import ArrayOps, ops_of
from .saved import loaded_state, saved_leaves
from .small_units import SmallUnits
from .units import Unit


@final
class UnitStates:
    """States by unit, from one step to the next; those of small units that are exchanged as one are one flat state.

    Args:
        world_size: number of workers.
    """

    def __init__(self, world_size: int) -> None:
        self._world_size = world_size
        self._states: dict[str, State] = {}
        self._together: dict[str, tuple[SmallUnits, State]] = {}
        self._group_of: dict[str, str] = {}
        self._loaded: dict[str, Mapping[str, Any]] = {}

    def clear(self) -> None:
        """Forget everything."""
        self._states, self._together, self._group_of, self._loaded = {}, {}, {}, {}

    def load(self, saved: Mapping[str, Mapping[str, Any]]) -> None:
        """Take over leaves by unit and path, as `saved_leaves` returns them; other units keep what they have."""
        self._loaded.update(saved)
        for name in saved:
            self._take_apart(name)
            self._states.pop(name, None)

    def take(self, unit: Unit, ops: ArrayOps) -> State:
        """Return the state of a unit, which is the caller's from now on; at first the initial one."""
        self._take_apart(unit.name)
        state = self._states.pop(unit.name, None)
        if state is not None:
            return state
        loaded = self._loaded.pop(unit.name, None)
        if loaded is not None:
            return loaded_state(unit, loaded, ops, self._world_size)
        return initial_state(unit.operator.leaves(unit.spec, self._world_size), ops, unit.name)

    def keep(self, unit: Unit, state: State) -> None:
        """Keep the state of a unit for the next step."""
        self._states[unit.name] = state

    def take_together(self, group: SmallUnits, ops: ArrayOps) -> State:
        """Return the state of units that are exchanged as one."""
        if not group.remembers:
            return {}
        held = self._together.get(group.name)
        if held is not None and held[0].units == group.units:
            self._forget(group)
            return held[1]
        return _joined([self.take(unit, ops) for unit in group.units], ops)

    def keep_together(self, group: SmallUnits, state: State) -> None:
        """Keep the state of units that were exchanged as one."""
        if group.remembers:
            self._together[group.name] = (group, state)
            self._group_of.update({unit.name: group.name for unit in group.units})

    def of(self, unit: Unit) -> State | None:
        """Return the state of a unit, if it has any yet; it is not the caller's."""
        self._take_apart(unit.name)
        if unit.name in self._loaded:
            loaded = self._loaded[unit.name]
            return loaded_state(unit, loaded, _ops_of_leaves(loaded), self._world_size)
        return self._states.get(unit.name)

    def saved_leaves(self, unit: Unit) -> dict[str, Any]:
        """Return copies of a unit's leaves by path."""
        self._take_apart(unit.name)
        if unit.name in self._loaded:
            return {path: copied(x) for path, x in self._loaded[unit.name].items()}
        return saved_leaves(unit, self._states.get(unit.name, {}), self._world_size)

    def arrays(self) -> Iterator[Array]:
        """Yield every array that is held."""
        states = [*self._states.values(), *(state for _, state in self._together.values())]
        for tree in (*states, *self._loaded.values()):
            yield from (array for _, array in walk(tree))

    def _take_apart(self, name: str) -> None:
        """Give each unit that is held together with this one its own part."""
        if name in self._group_of:
            group, state = self._together[self._group_of[name]]
            self._forget(group)
            parts = _parted(state, group, ops_of(next(array for _, array in walk(state))))
            self._states.update({unit.name: part for unit, part in zip(group.units, parts, strict=True)})

    def _forget(self, group: SmallUnits) -> None:
        del self._together[group.name]
        for unit in group.units:
            del self._group_of[unit.name]


def _joined(states: Sequence[State], ops: ArrayOps) -> State:
    """Return one state of flat arrays from states of one structure."""
    return {
        key: _joined([state[key] for state in states], ops)
        if isinstance(value, dict)
        else ops.concat([ops.flatten(state[key]) for state in states])
        for key, value in states[0].items()
    }


def _parted(state: State, group: SmallUnits, ops: ArrayOps) -> list[State]:
    """Return the state of each unit: parts of the flat arrays."""
    parts: list[State] = [{} for _ in group.units]
    for key, value in state.items():
        if isinstance(value, dict):
            pieces: Sequence[Any] = _parted(value, group, ops)
        else:
            flat = zip(group.units, ops.split(value, group.sizes), strict=True)
            pieces = [ops.reshape(piece, unit.spec.shape) for unit, piece in flat]
        for part, piece in zip(parts, pieces, strict=True):
            part[key] = piece
    return parts


def copied(saved: Any) -> Any:
    """Return a copy of a saved leaf: an array, or arrays by parameter."""
    if isinstance(saved, Mapping):
        return {name: copied(x) for name, x in saved.items()}
    return ops_of(saved).copy(saved)


def _ops_of_leaves(leaves: Mapping[str, Any]) -> ArrayOps:
    """Return the array operations of saved leaves: arrays by path, or arrays by parameter by path."""
    return ops_of(next(array for _, array in walk(leaves)))


def initial_leaves(unit: Unit, leaves: Mapping[str, Any], world_size: int) -> dict[str, Any]:
    """Return the leaves of a unit as they are before its first step, in the library that others of it are in."""
    ops = _ops_of_leaves(leaves)
    return dict(walk(initial_state(unit.operator.leaves(unit.spec, world_size), ops, unit.name)))
