"""How gradients of several parameters become a unit's, and arrays of a unit its parameters'."""

from __future__ import annotations

from collections.abc import Mapping

from ..contract import Array
from ..errors import ConfigurationError
from ..ops import ArrayOps, ops_of
from .units import Unit


def joined(unit: Unit, arrays: Mapping[str, Array], ops: ArrayOps) -> Array:
    """Return one array in the unit's shape from those of its parameters."""
    parts = [arrays[name] for name, _ in unit.parameters]
    if len(parts) == 1:
        return ops.reshape(parts[0], unit.spec.shape)
    return ops.concat([ops.flatten(part) for part in parts])


def by_parameter(unit: Unit, array: Array) -> dict[str, Array]:
    """Return the pieces of an array in the unit's shape by parameter, in the parameters' own shapes."""
    ops = ops_of(array)
    if len(unit.parameters) == 1:
        name, spec = unit.parameters[0]
        return {name: ops.reshape(array, spec.shape)}
    pieces = ops.split(array, [spec.size for _, spec in unit.parameters])
    named = zip(unit.parameters, pieces, strict=True)
    return {name: ops.reshape(piece, spec.shape) for (name, spec), piece in named}


def unit_gradient(unit: Unit, gradients: Mapping[str, Array]) -> tuple[Array, ArrayOps]:
    """Return the gradient that the unit's operator sees, from those of its parameters.

    Raises:
        ConfigurationError: one is missing, or its shape or element type is not the planned one.
    """
    for name, spec in unit.parameters:
        if name not in gradients:
            raise ConfigurationError(f"Gradient {name!r} is missing; give zeros for a parameter without gradient.")
        ops = ops_of(gradients[name])
        shape, dtype = ops.shape(gradients[name]), ops.dtype(gradients[name])
        if (shape, dtype) != (spec.shape, spec.dtype):
            raise ConfigurationError(
                f"Gradient {name!r} is {list(shape)} {dtype}, planned was {list(spec.shape)} {spec.dtype}; "
                "make a new exchange when the model changes."
            )
    ops = ops_of(gradients[unit.parameters[0][0]])
    return joined(unit, gradients, ops), ops
