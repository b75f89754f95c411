"""What must hold around an exchange: Horovod is there, for a fixed number of processes with a device each."""

from __future__ import annotations

import os

import horovod.tensorflow as stock
import tensorflow as tf

from ..errors import ConfigurationError, UsageError


def check_started() -> None:
    """Raise if nothing can be exchanged here.

    Raises:
        UsageError: Horovod is not initialised.
        ConfigurationError: the job is elastic, or a graph is built for a session.
    """
    if not stock.is_initialized():
        raise UsageError("Horovod is not initialised; call hvd.init() first.")
    if os.environ.get("HOROVOD_ELASTIC") == "1":
        raise ConfigurationError(
            "Elastic jobs change the number of workers, which compression state does not follow yet; start with a "
            "fixed number (horovodrun -np N)."
        )
    if not tf.compat.v1.executing_eagerly_outside_functions():
        raise ConfigurationError(
            "Graphs for tf.compat.v1 sessions cannot hold compression state; use eager execution and tf.function "
            "(leave out tf.compat.v1.disable_eager_execution())."
        )


def check_one_replica() -> None:
    """Raise if `tf.distribute` has several replicas in this process.

    Raises:
        ConfigurationError: it has.
    """
    if tf.distribute.get_strategy().num_replicas_in_sync > 1:
        raise ConfigurationError(
            "tf.distribute has several replicas in this process, Horovod one process for each device; leave out the "
            "strategy and start a process for each device (horovodrun -np N)."
        )
