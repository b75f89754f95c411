"""Loss scaling: ranks agree whether gradients are finite, so that all of them skip a step or none does.

`keras.optimizers.LossScaleOptimizer` applies gradients in a branch that it takes where they are finite. The optimizer
inside exchanges them there, in unscaled numbers that are never infinite; so every rank must take the same branch.
Keras also wraps a distributed optimizer by itself (`model.compile` of a mixed_float16 model), where nobody asks us:
therefore the class is taught, once, to ask whether the optimizer inside is distributed.
"""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any, final

import keras
import tensorflow as tf

from ..contract import Max
from ..errors import ConfigurationError
from ..tensorflow.exchanged import check_not_exchanged
from ..tensorflow.gradient_exchange import check_not_compiled
from ..tensorflow.transport import HorovodTransport

_ASKS = "_hvd_compress_asks_all_ranks"

# Optimizers that have asked so far in each process set. A number is taken at the first question, which all ranks ask
# together, and not when an optimizer is made, which a rank may do alone: to evaluate a model that it has loaded.
_asked: Counter[int] = Counter()


def teach_loss_scaling() -> None:
    """Make `LossScaleOptimizer` ask all ranks where the optimizer inside is distributed; others work as before.

    Raises:
        ConfigurationError: this version of Keras decides in another way.
    """
    kind = keras.optimizers.LossScaleOptimizer
    own, own_apply = getattr(kind, "check_finite", None), getattr(kind, "apply", None)
    if own is None or own_apply is None:
        raise ConfigurationError(
            f"LossScaleOptimizer of Keras {keras.__version__} has no check_finite(), so that ranks cannot agree "
            "whether gradients are finite; use Keras 3.15."
        )
    if getattr(own, _ASKS, False):
        return

    @functools.wraps(own)
    def check_finite(self: Any, grads: Any) -> Any:
        finite = own(self, grads)
        asks = getattr(self.inner_optimizer, "finite_on_all_ranks", None)
        return finite if asks is None else asks(finite)

    @functools.wraps(own_apply)
    def apply(self: Any, grads: Any, trainable_variables: Any = None) -> None:
        if getattr(self.inner_optimizer, "finite_on_all_ranks", None) is not None:
            check_asks(self)
            check_not_exchanged(grads)  # unscaled, they bear no mark
        own_apply(self, grads, trainable_variables)

    setattr(check_finite, _ASKS, True)
    kind.check_finite, kind.apply = check_finite, apply


def check_asks(optimizer: Any) -> None:
    """Raise for a `LossScaleOptimizer` whose class decides by itself whether gradients are finite.

    Args:
        optimizer: a `LossScaleOptimizer`, once these are taught.

    Raises:
        ConfigurationError: it does; ranks would take different branches, and wait for one another.
    """
    if not getattr(optimizer.check_finite, _ASKS, False):
        raise ConfigurationError(
            f"{type(optimizer).__name__} has a check_finite() of its own, by which one rank could skip a step that "
            "others take; leave check_finite() to keras.optimizers.LossScaleOptimizer, which asks all ranks."
        )


@final
class FiniteOnAllRanks:
    """Tells whether gradients are finite on every rank; all ranks call it at the same step.

    Args:
        process_set: Horovod's.
    """

    def __init__(self, process_set: Any) -> None:
        self._process_set = process_set
        self._name = ""
        # Only in a graph do Horovod's operations have names of their own.
        self._function = tf.function(self._asked, autograph=False)

    def __call__(self, finite: Any) -> tf.Tensor:
        """Return whether gradients that are finite, or not, on this rank are finite on every rank.

        Raises:
            ConfigurationError: it would become part of a function that XLA compiles.
        """
        check_not_compiled()
        if not self._process_set.included() or self._process_set.size() == 1:
            return finite
        if not self._name:
            number = _asked[self._process_set.process_set_id]
            _asked[self._process_set.process_set_id] += 1
            self._name = f"hvd_compress.keras.{number}.finite"
        return self._function(tf.cast(finite, tf.bool))

    def _asked(self, finite: tf.Tensor) -> tf.Tensor:
        overflowed = 1.0 - tf.reshape(tf.cast(finite, tf.float32), (1,))
        anywhere = HorovodTransport(self._process_set).start(Max(overflowed), self._name)
        return tf.equal(anywhere[0], 0.0)
