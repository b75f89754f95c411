"""SyncBatchNormalization for Keras 3: batch normalization over the batches of all ranks, as if they were one."""

from __future__ import annotations

import weakref
from typing import Any, final

import horovod.tensorflow as stock
import keras
import tensorflow as tf

from ..errors import ConfigurationError
from ..tensorflow.graph_optimizer import sealed

_NAME = "hvd_compress.sync_batch_normalization"


@final
@keras.saving.register_keras_serializable("hvd_compress")
class SyncBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization whose mean and variance in training are those of the batches of all ranks together.

    Ranks may have batches of different sizes, none of them empty, and masks. All ranks must call it equally often: it
    waits for them. Evaluation and prediction use the moving statistics, and wait for nobody.

    Args:
        fused: must be false, as with Horovod's own.
        kwargs: of `keras.layers.BatchNormalization`.

    Raises:
        ConfigurationError: `fused` is not false, or this version of Keras computes moments in another place.
    """

    def __init__(self, fused: bool = False, **kwargs: Any) -> None:
        if fused is not False:
            raise ConfigurationError(f"fused={fused!r}: no fused kernel asks other ranks; leave it at False.")
        if not hasattr(keras.layers.BatchNormalization, "_moments"):
            raise ConfigurationError(
                f"BatchNormalization of Keras {keras.__version__} has no _moments(), which hvd.SyncBatchNormalization "
                "replaces; use Keras 3.15, or GroupNormalization, which needs no other rank."
            )
        super().__init__(**kwargs)

    def _moments(self, inputs: Any, mask: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Return mean and variance over all ranks; where Keras computes those of one batch."""
        mean, variance = super()._moments(inputs, mask)
        if stock.size() == 1:
            return mean, variance
        if mask is None:
            elements = tf.size(inputs) // tf.shape(inputs)[self.axis]
        else:  # one for every place, but for the last axis, along which features lie
            elements = tf.math.count_nonzero(mask, dtype=tf.int32)
        count = tf.fill(tf.shape(mean), tf.cast(elements, mean.dtype))
        means, variances, counts = tf.unstack(_of_all_ranks(tf.stack([mean, variance, count])), axis=1)
        shares = tf.math.divide_no_nan(counts, tf.reduce_sum(counts, axis=0))
        joined = tf.reduce_sum(shares * means, axis=0)
        # Not as the mean of squares less the square of the mean, whose difference may have no right digit.
        return joined, tf.reduce_sum(shares * (variances + tf.square(means - joined)), axis=0)


# Collectives are numbered in the order in which a step's graph has them: names of layers may differ between ranks.
_numbers: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


def _next_name() -> str:
    if tf.executing_eagerly():
        return f"{_NAME}.eager"
    graph = tf.compat.v1.get_default_graph()
    while getattr(graph, "outer_graph", None) is not None and graph.outer_graph.building_function:
        graph = graph.outer_graph
    _numbers[graph] = _numbers.get(graph, -1) + 1
    return f"{_NAME}.{_numbers[graph]}"


def _of_all_ranks(own: tf.Tensor) -> tf.Tensor:
    """Return a tensor of all ranks, along a new first axis; a gradient is the sum of what all ranks have of it."""
    name = _next_name()

    @tf.custom_gradient  # type: ignore[untyped-decorator, unused-ignore]
    def gather(own: tf.Tensor) -> tuple[tf.Tensor, Any]:
        gathered = stock.allgather(sealed(own[None]), name=name, ignore_name_scope=True)
        gathered = tf.ensure_shape(gathered, [stock.size(), *own.shape])

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            total = stock.allreduce(sealed(upstream), op=stock.Sum, name=f"{name}.gradient", ignore_name_scope=True)
            return total[stock.rank()]

        return gathered, gradient

    return gather(own)
