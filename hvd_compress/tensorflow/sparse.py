"""Gradients of embeddings (`tf.IndexedSlices`), passed through as Horovod does: by gathering."""

from __future__ import annotations

from typing import Any

import horovod.tensorflow as stock
import tensorflow as tf

from .graph_optimizer import keep, sealed

# The row of a placeholder: Gloo never ends a gather of nothing, so every rank sends one, and all drop it.
NO_ROW = -1


def gathered(gradient: tf.IndexedSlices, name: str, average: bool, process_set: Any) -> tf.IndexedSlices:
    """Return the rows of all ranks, divided by the number of ranks for a mean.

    Args:
        gradient: this rank's rows, any number of them.
        name: equal on all ranks; letters, digits, dots and underscores.
        average: a mean over ranks; otherwise a sum.
        process_set: Horovod's.
    """
    rows = tf.cast(gradient.indices, tf.int64)
    rows = tf.concat([rows, tf.constant([NO_ROW], tf.int64)], axis=0)
    values = tf.concat([gradient.values, tf.zeros((1, *gradient.values.shape[1:]), gradient.values.dtype)], axis=0)
    options = {"process_set": process_set, "ignore_name_scope": True}
    all_rows = stock.allgather(sealed(rows), name=f"{name}.rows", **options)
    # Horovod does not move bfloat16; its bits it does.
    wire = tf.bitcast(values, tf.int16) if values.dtype == tf.bfloat16 else values
    all_values = tf.bitcast(stock.allgather(sealed(wire), name=f"{name}.values", **options), values.dtype)
    keep([all_rows, all_values])
    real = all_rows != NO_ROW
    kept = tf.boolean_mask(all_values, real)
    if average:
        kept = kept / tf.cast(process_set.size(), kept.dtype)
    indices = tf.cast(tf.boolean_mask(all_rows, real), gradient.indices.dtype)
    return tf.IndexedSlices(kept, indices, gradient.dense_shape)


def dense(gradient: tf.IndexedSlices, shape: tf.TensorShape) -> tf.Tensor:
    """Return the gradient as one tensor of the variable's shape, repeated rows added up."""
    return tf.math.unsorted_segment_sum(gradient.values, tf.cast(gradient.indices, tf.int64), shape[0])


def divided(gradient: tf.IndexedSlices, number: float) -> tf.IndexedSlices:
    """Return the gradient divided by a number."""
    values = gradient.values / tf.cast(number, gradient.values.dtype)
    return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)
