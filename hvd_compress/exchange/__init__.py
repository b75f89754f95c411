"""How one step's exchange is planned and run, whatever carries the collectives."""

from .agreement import check_agreement, check_change
from .bucket import BucketExchange
from .fusion import Fused, fuse
from .meter import Meter
from .phases import Phases
from .plan import Plan, make_plan, specs_of
from .units import Unit
from .worker import Residual, Worker

__all__ = [
    "BucketExchange",
    "Fused",
    "Meter",
    "Phases",
    "Plan",
    "Residual",
    "Unit",
    "Worker",
    "check_agreement",
    "check_change",
    "fuse",
    "make_plan",
    "specs_of",
]
