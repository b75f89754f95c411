"""Momentum correction: a velocity that contains a learning rate follows when that changes.

Keras keeps v <- m v - lr g and adds v to the weights. A change of lr would leave the steps summed up in v at the old
rate; Goyal et al., "Accurate, Large Minibatch SGD", section 3, multiply them by new/old. Keras 3 builds the momentum m
into the training function as a number, so that it cannot be changed for one step, as Horovod does it for Keras 2; the
velocities are variables, and m (new/old) v = m ((new/old) v). Under Nesterov momentum, the look-ahead then takes m
itself, as where the rate was the new one all along; Horovod takes m (new/old) twice.
"""

from __future__ import annotations

from typing import Any

import keras

from ...errors import ConfigurationError


def check_known(optimizer: Any) -> None:
    """Raise for an optimizer whose momentum is of a kind that is not known here.

    Raises:
        ConfigurationError: it is.
    """
    known = (keras.optimizers.SGD, keras.optimizers.RMSprop)
    if getattr(optimizer, "momentum", 0.0) and not isinstance(optimizer, known):
        raise ConfigurationError(
            f"momentum_correction=True: the velocities of {type(optimizer).__name__} are not known to contain the "
            "learning rate, as those of SGD and RMSprop do; pass momentum_correction=False."
        )


def scale_velocities(optimizer: Any, old: float, new: float) -> None:
    """Multiply the velocities of an optimizer by new/old.

    Args:
        optimizer: of Keras 3, not a wrapper.
        old: learning rate so far; where it is 0, so are the velocities.
        new: learning rate from now on.
    """
    if not old or old == new or not getattr(optimizer, "momentum", 0.0):
        return
    for velocity in _velocities(optimizer):
        velocity.assign(velocity * keras.ops.cast(new / old, velocity.dtype))


def _velocities(optimizer: Any) -> list[Any]:
    """Return the velocities; there are none before the optimizer is built."""
    if not optimizer.built:
        return []
    # RMSprop has no public name for them.
    return list(optimizer.momentums if isinstance(optimizer, keras.optimizers.SGD) else optimizer._momentums)
