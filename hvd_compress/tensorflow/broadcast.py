"""broadcast_variables: Horovod's, also for variables and element types that Horovod's own does not know.

And broadcast_global_variables, which is for graphs of TensorFlow 1 and refuses anything else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

import horovod.tensorflow as stock
import tensorflow as tf

from ..errors import ConfigurationError
from .variable_exchange import Variable

# Ends the path of every variable of a Keras 3 seed generator.
_SEED = "seed_generator_state"
# What Horovod's broadcast takes; anything else travels as its bytes.
_KNOWN = frozenset({"uint8", "int8", "uint16", "int16", "int32", "int64", "float16", "float32", "float64", "bool"})


def broadcast_variables(
    variables: Iterable[Variable], root_rank: int, process_set: Any = stock.global_process_set, inplace: bool = False
) -> Any:
    """Give variables the values that they have on one rank; all ranks of the process set call it.

    States of Keras's seed generators, which are among `model.variables`, stay each rank's own: equal ones would drop
    the same units on every rank.

    Args:
        variables: of TensorFlow or Keras, built; equally many on all ranks, with equal shapes.
        root_rank: whose values all ranks get.
        process_set: Horovod's.
        inplace: broadcast without temporary memory.
    """
    sent = [v for v in variables if not str(getattr(v, "path", "")).endswith(_SEED)]
    inner = [v if isinstance(v, tf.Variable) or not hasattr(v, "value") else v.value for v in sent]
    for variable in inner:
        if variable.dtype.name not in _KNOWN:
            data = tf.bitcast(tf.convert_to_tensor(variable), tf.uint8)
            sent = stock.broadcast(data, root_rank, ignore_name_scope=True, process_set=process_set)
            variable.assign(tf.bitcast(sent, variable.dtype))
    known = [v for v in inner if v.dtype.name in _KNOWN]
    return stock.broadcast_variables(known, root_rank, process_set=process_set, inplace=inplace)


def broadcast_global_variables(root_rank: int) -> Any:
    """Return the operation of a TensorFlow 1 graph that gives all global variables the values of one rank.

    Args:
        root_rank: whose values all ranks get.

    Raises:
        ConfigurationError: it is called eagerly or in a `tf.function`, where variables belong to no graph.
    """
    if tf.compat.v1.executing_eagerly_outside_functions():
        refuse_global_variables()
    return stock.broadcast_global_variables(root_rank)


def refuse_global_variables() -> NoReturn:
    """Raise ConfigurationError: TensorFlow 2 has no global variables."""
    raise ConfigurationError(
        "hvd.broadcast_global_variables() is for graphs of TensorFlow 1, and TensorFlow 2 keeps no list of all "
        "variables: call hvd.broadcast_variables(model.variables, root_rank=0), or give fit() "
        "hvd.callbacks.BroadcastGlobalVariablesCallback(0)."
    )
