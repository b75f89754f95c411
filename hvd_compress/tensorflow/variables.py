"""StateVariables: what operators remember between steps, in variables that graphs read and checkpoints save."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import tensorflow as tf

from ..contract import Leaf, Leaves, Scope, State, initial_state, walk
from ..exchange import Unit
from ..exchange.joining import by_parameter, joined
from ..exchange.saved import elementwise
from ..ops import ops_of


@final
class StateVariables(tf.Module):
    """Variables for the state of units: `variables_by_name[parameter or unit][path of the leaf]`.

    A leaf that holds a number for every element of the gradient is kept by parameter, also where several parameters
    make one unit, so that a residual is found by the path of the variable that it belongs to.

    Args:
        units: of a plan.
        world_size: number of workers.
    """

    def __init__(self, units: tuple[Unit, ...], world_size: int) -> None:
        super().__init__(name="hvd_compress_state")
        self._units = units
        self._world_size = world_size
        found: dict[str, dict[str, tf.Variable]] = {}
        like = ops_of(tf.constant(0.0))
        with tf.init_scope():
            for unit in units:
                leaves = unit.operator.leaves(unit.spec, world_size)
                for path, leaf, value in _walk(leaves, initial_state(leaves, like, unit.name)):
                    for name, part in _parts(unit, leaf, value).items():
                        variable = tf.Variable(part, trainable=False, name=f"hvd_compress/{name}/{path}")
                        found.setdefault(name, {})[path] = variable
        # Assigned whole: what is put into a tracked dictionary later is not restored.
        self.variables_by_name = found

    def read(self, unit: Unit) -> State:
        """Return the unit's state as it is now."""
        leaves = unit.operator.leaves(unit.spec, self._world_size)
        return self._read(unit, leaves, "")

    def write(self, unit: Unit, state: State) -> None:
        """Replace the unit's state."""
        leaves = unit.operator.leaves(unit.spec, self._world_size)
        for path, leaf, value in _walk(leaves, state):
            for name, part in _parts(unit, leaf, value).items():
                self.variables_by_name[name][path].assign(part)

    def replicated(self) -> list[tf.Variable]:
        """Return the variables that are equal on all ranks, in the same order on each."""
        found: list[tf.Variable] = []
        for unit in self._units:
            leaves = unit.operator.leaves(unit.spec, self._world_size)
            for path, leaf in walk(leaves):
                names = [name for name, _ in unit.parameters] if elementwise(leaf, unit) else [unit.name]
                if leaf.scope is Scope.REPLICATED:
                    found += [self.variables_by_name[name][path] for name in names]
        return found

    def _read(self, unit: Unit, leaves: Leaves, prefix: str) -> State:
        state: State = {}
        for key, leaf in leaves.items():
            path = f"{prefix}{key}"
            if not isinstance(leaf, Leaf):
                state[key] = self._read(unit, leaf, f"{path}.")
            elif elementwise(leaf, unit):
                parts = {name: self.variables_by_name[name][path].read_value() for name, _ in unit.parameters}
                state[key] = joined(unit, parts, ops_of(next(iter(parts.values()))))
            else:
                state[key] = self.variables_by_name[unit.name][path].read_value()
        return state


def _parts(unit: Unit, leaf: Leaf, value: tf.Tensor) -> dict[str, tf.Tensor]:
    return by_parameter(unit, value) if elementwise(leaf, unit) else {unit.name: value}


def _walk(leaves: Leaves, state: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Leaf, Any]]:
    """Return (path, declaration, value) of every leaf."""
    found: list[tuple[str, Leaf, Any]] = []
    for key, leaf in leaves.items():
        path = f"{prefix}{key}"
        if isinstance(leaf, Leaf):
            found.append((path, leaf, state[key]))
        else:
            found += _walk(leaf, state[key], f"{path}.")
    return found
