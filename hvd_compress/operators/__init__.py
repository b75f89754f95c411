"""Operators: how a group of workers turns its gradients into one update."""

from .adaptive_bins import AdaptiveBins
from .all_gather import AllGather
from .allreduce import AllReduce
from .alternating_low_rank import AlternatingLowRank
from .best_low_rank import BestLowRank
from .carry import dense_operator, dense_stand_in, operator_of
from .cyclic_top_k import CyclicTopK
from .global_top_k import GlobalTopK
from .half import Half
from .horovod_compressor import HorovodCompressor
from .joined import Joined
from .local_clip import LocalClip
from .low_rank import LowRank
from .random_block import RandomBlock
from .random_k import RandomK
from .random_low_rank import RandomLowRank
from .random_projection import RandomProjection
from .schedule import Schedule
from .shared_scale import SharedScale
from .sketch import CountSketch, SketchSize, sketch_size
from .slice_projection import SliceProjection
from .two_way import TwoWay
from .warmup import Warmup
from .wrapper import Wrapper

__all__ = [
    "AdaptiveBins",
    "AllGather",
    "AllReduce",
    "AlternatingLowRank",
    "BestLowRank",
    "CountSketch",
    "CyclicTopK",
    "GlobalTopK",
    "Half",
    "HorovodCompressor",
    "Joined",
    "LocalClip",
    "LowRank",
    "RandomBlock",
    "RandomK",
    "RandomLowRank",
    "RandomProjection",
    "Schedule",
    "SharedScale",
    "SketchSize",
    "SliceProjection",
    "TwoWay",
    "Warmup",
    "Wrapper",
    "dense_operator",
    "dense_stand_in",
    "operator_of",
    "sketch_size",
]
