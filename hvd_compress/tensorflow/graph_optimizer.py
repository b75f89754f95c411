"""What keeps TensorFlow's graph optimiser from taking collectives for functions of their inputs.

Horovod's operations are not marked stateful. The optimiser would run one whose input is constant, once, while it
prepares the graph; it would make one of two that have equal inputs; and it would drop one whose result nothing reads,
also where a control dependency asks for it. Each of these on one rank alone leaves the others waiting for ever.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def sealed(tensor: tf.Tensor) -> tf.Tensor:
    """Return a tensor of at least one axis such that nothing about it is known before the graph runs but its shape."""
    if tf.executing_eagerly():
        return tensor
    # A slice from an index that is always 0, which only the clock knows; it shares the tensor's memory. Two readings of
    # a clock are never merged. (A reshape would be seen through, by its shape.)
    start = tf.cast(tf.minimum(tf.timestamp(), 0.0), tf.int32)
    others = len(tensor.shape) - 1
    return tf.ensure_shape(tf.slice(tensor, [start, *[0] * others], [-1] * (1 + others)), tensor.shape)


def keep(results: Sequence[tf.Tensor]) -> None:
    """Make the graph that is being built compute these tensors, whether or not anything reads them."""
    if tf.executing_eagerly() or not results:
        return
    # An assertion that always holds reads an element of each: the optimiser drops no assertions.
    tf.raw_ops.Assert(condition=tf.timestamp() > 0.0, data=[tf.reshape(x, (-1,))[:1] for x in results])
