"""Operators: how a group of workers turns its gradients into one update."""

from .all_gather import AllGather
from .allreduce import AllReduce
from .alternating_low_rank import AlternatingLowRank
from .best_low_rank import BestLowRank
from .carry import dense_operator, dense_stand_in, operator_of
from .horovod_compressor import HorovodCompressor
from .low_rank import LowRank
from .two_way import TwoWay
from .warmup import Warmup
from .wrapper import Wrapper

__all__ = [
    "AllGather",
    "AllReduce",
    "AlternatingLowRank",
    "BestLowRank",
    "HorovodCompressor",
    "LowRank",
    "TwoWay",
    "Warmup",
    "Wrapper",
    "dense_operator",
    "dense_stand_in",
    "operator_of",
]
