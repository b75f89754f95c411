"""Names and shapes of a model's parameters, whatever library it is of; none is imported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..contract import GRADIENT_DTYPES, Spec
from ..errors import ConfigurationError


def specs_of_model(model: Any) -> list[tuple[str, Spec]]:
    """Return (name, spec) of everything trainable, in the order in which drivers exchange it.

    Args:
        model: a torch module; a Keras model; a mapping of names to arrays or shapes; or (name, `Spec`) pairs.

    Raises:
        ConfigurationError: it is none of these.
    """
    if isinstance(model, Mapping):
        return [(str(name), _spec(value)) for name, value in model.items()]
    if hasattr(model, "named_parameters"):
        # Last first, as the drivers do: about the order in which backward makes the gradients.
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        return [(name, _spec(p)) for name, p in reversed(trained.items())]
    if hasattr(model, "trainable_variables"):
        variables = [(getattr(v, "path", None) or v.name, _spec(v, output_axis=-1)) for v in model.trainable_variables]
        return variables[::-1]
    if isinstance(model, Iterable) and not isinstance(model, str):
        pairs = list(model)
        if all(isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs):
            return [(name, _spec(value)) for name, value in pairs]
    raise ConfigurationError(
        f"model={type(model).__name__}: give a torch module, a Keras model, a mapping of names to shapes or arrays, or "
        "(name, Spec) pairs."
    )


def _spec(value: Any, output_axis: Any = 0) -> Spec:
    if isinstance(value, Spec):
        return value
    shape = value if isinstance(value, (tuple, list)) else getattr(value, "shape", None)
    if shape is None or not all(hasattr(n, "__index__") for n in shape):
        raise ConfigurationError(f"{value!r} has no shape; give an array, a tuple of dimensions or a Spec.")
    dtype = str(getattr(value, "dtype", "float32")).rpartition(".")[2]
    for known in GRADIENT_DTYPES:
        if f"'{known}'" in dtype:  # as TensorFlow prints it: <dtype: 'float32'>
            dtype = known
    return Spec(tuple(n.__index__() for n in shape), dtype, output_axis)
