"""Named state: what an operator remembers between steps, declared before any array exists."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeAlias

from .spec import DTYPE_BYTES

if TYPE_CHECKING:
    from ..ops import ArrayOps
    from .request import Array


class Scope(Enum):
    """Whose a leaf of state is.

    REPLICATED: equal on all ranks. LOCAL: this rank's own; in the gradient's shape, it is element by element.
    SHARDED: this rank's piece of something that all ranks hold together, such as a server's residual.
    """

    REPLICATED = "replicated"
    LOCAL = "local"
    SHARDED = "sharded"


class Fill(Enum):
    """What a leaf holds before the first step."""

    ZEROS = "zeros"
    NORMAL = "normal"
    ORTHONORMAL = "orthonormal"


@dataclass(frozen=True)
class Leaf:
    """Declaration of one array of state.

    Args:
        shape: dimensions.
        dtype: element type.
        scope: whose it is.
        fill: zeros, or standard normal drawn from (seed, unit name, leaf path), or orthonormal rows made of such.
        seed: of the normal draw.
    """

    shape: tuple[int, ...]
    dtype: str
    scope: Scope
    fill: Fill = Fill.ZEROS
    seed: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes held between steps."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


# A tree: leaves by name; a wrapper keeps its inner operator's tree under "inner".
Leaves: TypeAlias = Mapping[str, "Leaf | Leaves"]
State: TypeAlias = dict[str, Any]


def walk(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (path, leaf) for every leaf of a tree, paths joined by dots."""
    for name, value in tree.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from walk(value, f"{path}.")
        else:
            yield path, value


def initial_state(leaves: Leaves, ops: ArrayOps, name: str, prefix: str = "") -> State:
    """Return the arrays that `leaves` declares, as they are before the first step of unit `name`."""
    state: State = {}
    for key, leaf in leaves.items():
        path = f"{prefix}{key}"
        if isinstance(leaf, Leaf):
            state[key] = _initial_array(leaf, ops, (leaf.seed, name, path))
        else:
            state[key] = initial_state(leaf, ops, name, f"{path}.")
    return state


def _initial_array(leaf: Leaf, ops: ArrayOps, key: tuple[int | str, ...]) -> Array:
    if leaf.fill is Fill.NORMAL:
        return ops.normal(leaf.shape, leaf.dtype, key)
    if leaf.fill is Fill.ORTHONORMAL:
        return ops.orthonormal_rows(ops.normal(leaf.shape, leaf.dtype, key))
    return ops.zeros(leaf.shape, leaf.dtype)


def state_bytes(leaves: Leaves) -> int:
    """Return the bytes of state that `leaves` declares."""
    return sum(leaf.nbytes for _, leaf in walk(leaves))
