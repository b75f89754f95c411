"""Do all ranks hold the same model? A checksum per variable, compared across ranks by operations of a graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import horovod.tensorflow as stock
import numpy as np
import tensorflow as tf

from ..drivers.replicas import check_checksums

CURE = (
    "hvd.broadcast_variables(model.variables, root_rank=0), or give fit() "
    "hvd.callbacks.BroadcastGlobalVariablesCallback(0),"
)


def replicas_checked(
    parameters: Mapping[str, Any], step: tf.Tensor, every: int, name: str, process_set: Any
) -> list[tf.Tensor]:
    """Return what must be there before this step's exchange; on all ranks it fails if a variable differs between them.

    Variables are compared before the second step, since it is after the first one that all of them exist and are
    broadcast, and at every so many steps if asked.

    Args:
        parameters: variables or their values, by name.
        step: steps done, 0-D.
        every: compare again every so many steps; 0: never again.
        name: of the collective, equal on all ranks.
        process_set: Horovod's.
    """
    names = list(parameters)

    def compare(all_sums: np.ndarray[Any, Any], step: np.ndarray[Any, Any]) -> np.bool_:
        check_checksums(names, all_sums, int(step), what="Variable", cure=CURE)
        return np.bool_(True)

    def check() -> tf.Tensor:
        wide = [tf.cast(tf.convert_to_tensor(value), tf.float64) for value in parameters.values()]
        sums = tf.stack([s for value in wide for s in (tf.reduce_sum(value), tf.reduce_sum(tf.abs(value)))])
        all_sums = stock.allgather(sums[None], name=name, process_set=process_set, ignore_name_scope=True)
        return tf.ensure_shape(tf.numpy_function(compare, [all_sums, step], tf.bool), ())

    if process_set.size() == 1 or not names:
        return []
    due = tf.equal(step, 1)
    if every:
        due |= (step > 0) & tf.equal(step % every, 0)
    return [tf.cond(due, check, lambda: tf.constant(True))]
