"""Codecs: local ways to write a gradient in fewer bytes; each is a Horovod compressor too."""

from .atomo import Spectral
from .block_sign import BlockSign
from .cast import Cast
from .identity import Identity
from .natural import Natural
from .one_bit import OneBit
from .qsgd import QSGD
from .scaled import Scaled
from .terngrad import TernGrad
from .top_k import TopK

__all__ = [
    "QSGD",
    "BlockSign",
    "Cast",
    "Identity",
    "Natural",
    "OneBit",
    "Scaled",
    "Spectral",
    "TernGrad",
    "TopK",
]
