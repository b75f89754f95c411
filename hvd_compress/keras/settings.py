"""What a Keras optimizer must not do besides what its compressor does."""

from __future__ import annotations

from typing import Any

from ..contract import Codec, Operator
from ..errors import ConfigurationError

_MOMENTA = ("momentum", "beta_1", "adam_beta_1")


def check_optimizer(optimizer: Any, compressor: Operator | Codec) -> None:
    """Raise if both the compressor and the optimizer have momentum, or both have weight decay.

    Raises:
        ConfigurationError: they have; it would act twice.
    """
    if not isinstance(compressor, Operator):
        return
    for name in _MOMENTA:
        value = getattr(optimizer, name, None)
        if compressor.has_momentum and value:
            raise ConfigurationError(
                f"{compressor!r} has momentum of its own and {type(optimizer).__name__} has {name}={value!r}; use "
                "keras.optimizers.SGD with momentum=0.0, or another compressor."
            )
    decay = getattr(optimizer, "weight_decay", None)
    if compressor.needs_parameters and decay:
        raise ConfigurationError(
            f"{compressor!r} has weight decay of its own and {type(optimizer).__name__} has weight_decay={decay!r}; "
            "set one of the two to 0."
        )
