"""Methods: published algorithms under the names their papers gave them."""

from .adacomp import AdaComp
from .atomo import Atomo
from .dgc import DGC
from .dist_ef import DistEFBlockSGD, DistEFBlockSGDM, DistEFSGD, DistEFSGDM
from .ecqsgd import ECQSGD
from .ef_signsgd import EFSignSGD
from .gradiveq import GradiVeQ
from .gtopk import GTopK
from .majority_vote import SignumMajorityVote
from .mem_sgd import MemSGD
from .method import Method
from .one_bit_sgd import OneBitSGD
from .powersgd import PowerSGD
from .quantized_compressive_sampling import QuantizedCompressiveSampling
from .scalecom import ScaleCom
from .sketched_sgd import SketchedSGD
from .unbiased_low_rank import UnbiasedLowRank

__all__ = [
    "DGC",
    "ECQSGD",
    "AdaComp",
    "Atomo",
    "DistEFBlockSGD",
    "DistEFBlockSGDM",
    "DistEFSGD",
    "DistEFSGDM",
    "EFSignSGD",
    "GTopK",
    "GradiVeQ",
    "MemSGD",
    "Method",
    "OneBitSGD",
    "PowerSGD",
    "QuantizedCompressiveSampling",
    "ScaleCom",
    "SignumMajorityVote",
    "SketchedSGD",
    "UnbiasedLowRank",
]
