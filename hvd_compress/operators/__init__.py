"""Operators: how a group of workers turns its gradients into one update."""

from .allreduce import AllReduce
from .alternating_low_rank import AlternatingLowRank
from .best_low_rank import BestLowRank
from .carry import dense_operator, operator_of
from .horovod_compressor import HorovodCompressor
from .low_rank import LowRank
from .two_way import TwoWay
from .warmup import Warmup

__all__ = [
    "AllReduce",
    "AlternatingLowRank",
    "BestLowRank",
    "HorovodCompressor",
    "LowRank",
    "TwoWay",
    "Warmup",
    "dense_operator",
    "operator_of",
]
