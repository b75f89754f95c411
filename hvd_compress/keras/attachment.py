"""Attachment: puts the exchange of gradients into the steps of one Keras optimizer.

Three methods are replaced on the object alone, so that its class, configuration and saved form stay what they are.
Keras 3 calls them in this order, and the exchange is where gradients are unscaled, accumulated and not clipped yet:

    apply -> [accumulate; only every n-th step goes on] -> _clip_gradients -> weight decay -> update
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import keras
import tensorflow as tf

from ..errors import ConfigurationError, UsageError
from ..tensorflow.exchanged import check_not_exchanged
from ..tensorflow.gradient_exchange import check_not_compiled
from ..tensorflow.settings import check_clipping
from ..tensorflow.variable_exchange import VariableExchange
from .loss_scaling import FiniteOnAllRanks
from .saving import SavedCompression

_REPLACED = ("apply", "_backend_apply_gradients", "_clip_gradients")


@final
class Attachment:
    """The steps of one optimizer, with gradients exchanged in them.

    Args:
        optimizer: of Keras 3; it gets `variable_exchange`, and `register_local_var` as Horovod's has it.
        exchange: what exchanges gradients.
        factor: gradients are multiplied by it before the exchange: by n, what Keras averages over n steps is a sum.
        name: of the operations in graphs.

    Raises:
        ConfigurationError: this version of Keras applies gradients in another way.
    """

    def __init__(self, optimizer: Any, exchange: VariableExchange, factor: float, name: str) -> None:
        missing = [method for method in _REPLACED if not callable(getattr(optimizer, method, None))]
        if missing:
            raise ConfigurationError(
                f"{type(optimizer).__name__} of Keras {keras.__version__} has no {', '.join(missing)}, where gradients "
                "would be exchanged; use Keras 3.15, or hvd.DistributedGradientTape of hvd_compress.tensorflow."
            )
        self._optimizer = optimizer
        self._exchange = exchange
        self.factor = factor
        self._name = name
        self._variables: Sequence[Any] | None = None
        self._applied = self._exchanged = False
        self._apply = optimizer.apply
        self._apply_filtered = optimizer._backend_apply_gradients
        self._clip = optimizer._clip_gradients
        optimizer.apply = self.apply
        optimizer._backend_apply_gradients = self.apply_filtered
        optimizer._clip_gradients = self.exchange_and_clip
        optimizer.finite_on_all_ranks = FiniteOnAllRanks(exchange.process_set)
        optimizer.register_local_var = exchange.register_local
        # Checkpoints of TensorFlow track the exchange by this name, files of Keras the other one.
        optimizer.variable_exchange = exchange
        optimizer.hvd_compress = SavedCompression(exchange, self)

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        """Apply gradients as the optimizer does, and see that they were exchanged on the way.

        Raises:
            ConfigurationError: variables are to be overwritten instead of updated, or XLA compiles this step.
            UsageError: gradients are exchanged already, or the optimizer's class applies them in a way of its own.
        """
        check_not_compiled()
        check_not_exchanged(grads)
        if len(grads) == 0:
            return
        variables = self._optimizer._trainable_variables if trainable_variables is None else trainable_variables
        variables = list(variables)
        for variable in variables:
            if getattr(variable, "overwrite_with_gradient", False):
                raise ConfigurationError(
                    f"Variable {variable.path!r} is overwritten by what comes as its gradient (float8 training), which "
                    "would differ between ranks; train without float8 quantisation."
                )
        self._applied = False
        self._apply(grads, None if trainable_variables is None else variables)
        if not self._applied:
            raise UsageError(_not_exchanged(self._optimizer))

    def apply_filtered(self, grads: Sequence[Any], trainable_variables: Sequence[Any]) -> None:
        """Apply the gradients of the variables that have one."""
        self._variables, self._exchanged = trainable_variables, False
        try:
            self._apply_filtered(grads, trainable_variables)
        finally:
            self._variables = None
        # Outside of graphs, a step that accumulates does not come by the exchange.
        if not (self._exchanged or self._optimizer.gradient_accumulation_steps):
            raise UsageError(_not_exchanged(self._optimizer))
        self._applied = True

    def exchange_and_clip(self, grads: Sequence[Any]) -> Any:
        """Return the mean gradients of all ranks, clipped as the optimizer is told to.

        Raises:
            UsageError: it is not known which variables the gradients are of.
            ConfigurationError: they would be clipped by a norm that differs between ranks.
        """
        if self._variables is None or len(self._variables) != len(grads):
            raise UsageError(
                f"{type(self._optimizer).__name__} clips gradients outside of a step, where it is not known which "
                "variables they are of; leave clipping to the distributed optimizer."
            )
        check_clipping(self._optimizer, self._exchange.has_local)
        self._exchanged = True
        self._exchange.tell(
            gradient_accumulation_steps=self._optimizer.gradient_accumulation_steps,
            average_aggregated_gradients=self.factor == 1.0,
        )
        with tf.name_scope(self._name):
            given = grads if self.factor == 1.0 else [self._multiplied(gradient) for gradient in grads]
            means = self._exchange(given, self._variables, self._optimizer.learning_rate)
        return self._clip(means)

    def _multiplied(self, gradient: Any) -> Any:
        if isinstance(gradient, tf.IndexedSlices):
            return tf.IndexedSlices(gradient.values * self.factor, gradient.indices, gradient.dense_shape)
        return gradient * tf.cast(self.factor, gradient.dtype)


def _not_exchanged(optimizer: Any) -> str:
    return (
        f"{type(optimizer).__name__} applied gradients without exchanging them, since its class does so in a way of "
        "its own; exchange them by hvd.DistributedGradientTape of hvd_compress.tensorflow instead."
    )
