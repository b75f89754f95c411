"""What an optimizer must not do besides what its compressor does."""

from __future__ import annotations

from typing import Any

from ..contract import Codec, Operator
from ..errors import ConfigurationError

# As Keras 3, tf_keras and tf.compat.v1.train name it.
_MOMENTA = ("momentum", "beta_1", "adam_beta_1", "_momentum", "_beta1")


def check_optimizer(optimizer: Any, compressor: Operator | Codec) -> None:
    """Raise if both the compressor and the optimizer have momentum, or both have weight decay.

    Raises:
        ConfigurationError: they have; it would act twice.
    """
    if not isinstance(compressor, Operator):
        return
    kind = type(optimizer).__name__
    for name in _MOMENTA if compressor.has_momentum else ():
        value = getattr(optimizer, name, None)
        if value is not None and not callable(value) and float(value) != 0.0:
            raise ConfigurationError(
                f"{compressor!r} has momentum of its own and {kind} has {name.lstrip('_')}={float(value)!r}; use SGD "
                "with momentum=0.0, or another compressor."
            )
    decay = getattr(optimizer, "weight_decay", None)
    if compressor.needs_parameters and decay:
        raise ConfigurationError(
            f"{compressor!r} has weight decay of its own and {kind} has weight_decay={decay!r}; set one of them to 0."
        )


def check_clipping(optimizer: Any, has_local: bool) -> None:
    """Raise if shared gradients would be clipped by a norm that contains those of local variables.

    Args:
        optimizer: that clips.
        has_local: whether some variables are left to this rank.

    Raises:
        ConfigurationError: they would.
    """
    norm = getattr(optimizer, "global_clipnorm", None)
    if norm and has_local:
        raise ConfigurationError(
            f"global_clipnorm={norm!r}: the norm of all gradients contains those of local variables, which differ "
            "between ranks, so that ranks would clip what they share differently; use clipnorm or clipvalue."
        )
