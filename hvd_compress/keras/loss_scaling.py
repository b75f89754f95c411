"""Loss scaling: ranks agree whether gradients are finite, so that all of them skip a step or none does.

`keras.optimizers.LossScaleOptimizer` applies gradients in a branch that it takes where they are finite. The optimizer
inside exchanges them there, in unscaled numbers that are never infinite; so every rank must take the same branch.
Keras also wraps a distributed optimizer by itself (`model.compile` of a mixed_float16 model), where nobody asks us:
therefore the class is taught, once, to ask whether the optimizer inside is distributed.
"""

from __future__ import annotations

import functools
from typing import Any, final

import keras
import tensorflow as tf

from ..contract import Max
from ..errors import ConfigurationError
from ..tensorflow.gradient_exchange import check_not_compiled
from ..tensorflow.transport import HorovodTransport

_ASKS = "_hvd_compress_asks_all_ranks"


def teach_loss_scaling() -> None:
    """Make `LossScaleOptimizer` ask all ranks where the optimizer inside is distributed; others work as before.

    Raises:
        ConfigurationError: this version of Keras decides in another way.
    """
    kind = keras.optimizers.LossScaleOptimizer
    own = getattr(kind, "check_finite", None)
    if own is None:
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

    setattr(check_finite, _ASKS, True)
    kind.check_finite = check_finite


@final
class FiniteOnAllRanks:
    """Tells whether gradients are finite on every rank; all ranks call it at the same step.

    Args:
        name: of the collective, equal on all ranks.
        process_set: Horovod's.
    """

    def __init__(self, name: str, process_set: Any) -> None:
        self._name = name
        self._process_set = process_set
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
        return self._function(tf.cast(finite, tf.bool))

    def _asked(self, finite: tf.Tensor) -> tf.Tensor:
        overflowed = 1.0 - tf.reshape(tf.cast(finite, tf.float32), (1,))
        anywhere = HorovodTransport(self._process_set).start(Max(overflowed), self._name)
        return tf.equal(anywhere[0], 0.0)
