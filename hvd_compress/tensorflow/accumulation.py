"""Accumulation: gradients of several backward passes, added up on this rank before they are applied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import tensorflow as tf

from ..drivers.settings import check_passes
from ..errors import ConfigurationError, UsageError
from . import sparse
from .identity import identity
from .variable_exchange import Variable

Pairs = Sequence[tuple[Any, Variable]]


@final
class Accumulation(tf.Module):
    """Adds up gradients in variables; every so many passes they are applied, and start from zero.

    Args:
        passes: this many, at least 1, make a step.
        average: divide the sums by `passes`.
        sparse_as_dense: make `tf.IndexedSlices` dense.

    Raises:
        ConfigurationError: `passes` is not a whole number of at least 1.
    """

    def __init__(self, passes: int, average: bool, sparse_as_dense: bool) -> None:
        super().__init__(name="hvd_compress_accumulation")
        self._passes = check_passes(passes)
        self._factor = 1.0 / passes if average else 1.0
        self._sparse_as_dense = sparse_as_dense
        self.sums: list[tf.Variable] | None = None
        self._of: tuple[int, ...] = ()
        with tf.init_scope():
            self.passes_done = tf.Variable(0, dtype=tf.int64, trainable=False, name="hvd_compress/passes_done")

    def __call__(self, pairs: Pairs, apply: Callable[[Pairs], Any], skip: Callable[[], Any]) -> None:
        """Add gradients up; apply the sums if this pass completes a step.

        Args:
            pairs: (gradient, variable), the same variables in every pass; gradients may be None.
            apply: takes (sum, variable) of every gradient that is not None.
            skip: runs in its place where the step is not complete.

        Raises:
            ConfigurationError: a gradient is `tf.IndexedSlices` and stays so.
            UsageError: other variables have gradients than in the first pass.
        """
        given = [(self._dense(gradient, v), v) for gradient, v in pairs if gradient is not None]
        if self.sums is None:
            self._of = tuple(identity(v) for _, v in given)
            with tf.init_scope():
                self.sums = [
                    tf.Variable(tf.zeros(v.shape, gradient.dtype), trainable=False, name="hvd_compress/sum")
                    for gradient, v in given
                ]
        if self._of != tuple(identity(v) for _, v in given):
            raise UsageError(
                f"{len(given)} variables have gradients in this pass, in the first one it was {len(self.sums)} or "
                "others; give the same variables gradients, in the same order, in every pass of "
                "backward_passes_per_step."
            )
        sums = self.sums
        for total, (gradient, _) in zip(sums, given, strict=True):
            total.assign_add(gradient)
        self.passes_done.assign_add(1)

        def complete() -> tf.Tensor:
            read = [total.read_value() * tf.cast(self._factor, total.dtype) for total in sums]
            apply([(gradient, v) for gradient, (_, v) in zip(read, given, strict=True)])
            for total in sums:
                total.assign(tf.zeros_like(total))
            self.passes_done.assign(0)
            return tf.constant(True)

        def wait() -> tf.Tensor:
            skip()
            return tf.constant(False)

        tf.cond(self.passes_done.read_value() >= self._passes, complete, wait)

    def _dense(self, gradient: Any, variable: Variable) -> tf.Tensor:
        if not isinstance(gradient, tf.IndexedSlices):
            return gradient
        if not self._sparse_as_dense:
            raise ConfigurationError(
                "tf.IndexedSlices cannot be added up over backward passes; pass sparse_as_dense=True, or "
                "backward_passes_per_step=1."
            )
        return sparse.dense(gradient, variable.shape)
