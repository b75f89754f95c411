"""How a codec travels when the user names no operator for it."""

from __future__ import annotations

from ..codecs import Identity
from ..contract import Codec, Operator, Spec
from .all_gather import AllGather
from .allreduce import AllReduce
from .two_way import TwoWay


def operator_of(compressor: Operator | Codec, spec: Spec) -> Operator:
    """Return the operator for a gradient: a codec moves by `AllReduce` where it can be summed, else by `TwoWay`.

    A codec that is not to be cut into shards moves by `AllGather`.
    """
    if isinstance(compressor, Operator):
        return compressor
    if compressor.summable(spec):
        return AllReduce(compressor)
    return AllGather(compressor) if compressor.whole else TwoWay(compressor)


def dense_operator(spec: Spec) -> Operator:
    """Return the operator that averages a gradient of `spec` uncompressed, in its own element type."""
    return operator_of(Identity(), spec)


def dense_stand_in(operator: Operator, spec: Spec) -> Operator:
    """Return how a gradient travels that `operator` is not worth using for."""
    return operator.dense(spec) or dense_operator(spec)
