"""Gradient compression for Horovod.

`import hvd_compress.torch as hvd` in place of `import horovod.torch as hvd`, and
`hvd.DistributedOptimizer(..., compression=PowerSGD)`. This module imports no framework.
"""

from .codecs import Cast, Identity
from .contract import Codec, Operator, Spec
from .drivers import Simulator
from .errors import (
    CompressionError,
    ConfigurationError,
    CorruptPayloadError,
    RankDisagreementError,
    ReplicaDivergenceError,
    StockOptimizerError,
    UnknownCompressorError,
    UsageError,
)
from .feedback import ErrorFeedback, LocalWeightDecay, Momentum, MomentumCorrection, StepSizeScaling
from .methods import PowerSGD
from .operators import (
    AllGather,
    AllReduce,
    AlternatingLowRank,
    BestLowRank,
    HorovodCompressor,
    LowRank,
    TwoWay,
    Warmup,
)
from .registry import names, register, resolve
from .version import __version__

__all__ = [
    "AllGather",
    "AllReduce",
    "AlternatingLowRank",
    "BestLowRank",
    "Cast",
    "Codec",
    "CompressionError",
    "ConfigurationError",
    "CorruptPayloadError",
    "ErrorFeedback",
    "HorovodCompressor",
    "Identity",
    "LocalWeightDecay",
    "LowRank",
    "Momentum",
    "MomentumCorrection",
    "Operator",
    "PowerSGD",
    "RankDisagreementError",
    "ReplicaDivergenceError",
    "Simulator",
    "Spec",
    "StepSizeScaling",
    "StockOptimizerError",
    "TwoWay",
    "UnknownCompressorError",
    "UsageError",
    "Warmup",
    "__version__",
    "names",
    "register",
    "resolve",
]
