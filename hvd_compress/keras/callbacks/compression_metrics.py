"""CompressionMetricsCallback: what compression saves and holds back, epoch by epoch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import numpy as np
import tensorflow as tf

from ...errors import ConfigurationError
from ...exchange import Phases, Plan
from ...exchange.saved import residuals
from ...operators import dense_operator
from ...tensorflow.gradient_exchange import GradientExchange
from .horovod_callback import HorovodCallback

PREFIX = "compression_"


@final
class CompressionMetricsCallback(HorovodCallback):
    """Adds to the logs of an epoch, and shows in TensorBoard, what the exchange of gradients sends and keeps.

    compression_sent_bytes: that a worker sends at a step, the mean over the steps of this epoch.
    compression_ratio: how many times less that is than for plain averages; inf if nothing is sent.
    compression_residual_norm: of all that error feedback holds back on this rank, at the end of the epoch.
    compression_steps: exchanges since the optimizer was made.

    Bytes are those of gradients that the plan knows, from their shapes; rows of embeddings that are gathered
    uncompressed are not among them. After `MetricAverageCallback` in the list the norm is this rank's in the logs too;
    before it, the mean over ranks.

    Args:
        log_dir: of TensorBoard; this rank writes to its folder `rank<n>`. None: only the logs of Keras.

    Raises:
        ConfigurationError: the optimizer is not distributed by hvd_compress.
    """

    def __init__(self, log_dir: str | Path | None = None) -> None:
        super().__init__()
        self.log_dir = log_dir
        self._writer: tf.summary.SummaryWriter | None = None
        self._step = 0

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        if self.variable_exchange is None:
            raise ConfigurationError(
                f"{type(self).__name__} tells of an exchange of gradients, and this model's optimizer has none: wrap "
                "it with hvd.DistributedOptimizer after `import hvd_compress.keras as hvd`, or leave out the callback."
            )
        super().on_train_begin(logs)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        exchange = self._exchange
        self._step = 0 if exchange is None else int(exchange.step.numpy())

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        exchange = self._exchange
        if exchange is None:  # a rank outside the process set; or no gradient was exchanged so far
            return
        found = self._measured(exchange)
        if logs is not None:
            logs.update(found)
        if self.log_dir is not None:
            self._write(found, epoch)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    @property
    def _exchange(self) -> GradientExchange | None:
        return None if self.variable_exchange is None else self.variable_exchange.exchange

    def _measured(self, exchange: GradientExchange) -> dict[str, float]:
        size, step = self.process_set.size(), int(exchange.step.numpy())
        sent = mean_wire_bytes(exchange.plan, size, self._step, step)
        dense = sum(dense_operator(unit.spec).wire_bytes(unit.spec, size) for unit in exchange.plan.units)
        return {
            f"{PREFIX}sent_bytes": sent,
            f"{PREFIX}ratio": dense / sent if sent else math.inf,
            f"{PREFIX}residual_norm": residual_norm(exchange, size),
            f"{PREFIX}steps": float(step),
        }

    def _write(self, values: Mapping[str, float], epoch: int) -> None:
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(
                str(Path(str(self.log_dir)) / f"rank{self.process_set.rank()}")
            )
        # What `tf.summary.scalar` does, which is only there where TensorBoard itself is installed.
        metadata = tf.compat.v1.SummaryMetadata(
            plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars"), data_class="DATA_CLASS_SCALAR"
        )
        with self._writer.as_default():
            for name, value in values.items():
                tf.summary.write(name, tf.constant(value, tf.float32), step=epoch, metadata=metadata)
        self._writer.flush()


def mean_wire_bytes(plan: Plan, world_size: int, first: int, end: int) -> float:
    """Return the bytes that a worker sends at a step, the mean over steps; those of the next step where there is none.

    Args:
        plan: of the exchange.
        world_size: number of workers.
        first: the first step.
        end: the one after the last step.
    """
    phases = Phases.of(plan)
    # Steps of one phase are built alike, so they send alike.
    steps = Counter(phases.number(step) for step in range(first, max(end, first + 1)))
    sent = {number: plan.wire_bytes(world_size, phases.first_steps[number]) for number in steps}
    return sum(sent[number] * count for number, count in steps.items()) / sum(steps.values())


def residual_norm(exchange: GradientExchange, world_size: int) -> float:
    """Return the Euclidean norm of all residuals of this rank together."""
    total = 0.0
    for unit in exchange.plan.units:
        for residual in residuals(unit, exchange.state.read(unit), world_size).values():
            total += float(np.square(np.asarray(tf.cast(residual, tf.float64))).sum())
    return math.sqrt(total)
