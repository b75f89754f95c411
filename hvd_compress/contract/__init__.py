"""The contract between algorithms and drivers; it imports no framework."""

from .checks import check_at_least, check_choice, check_codec, check_compressor, check_finite
from .codec import Codec, Key
from .operator import Context, Operator
from .request import (
    AllGather,
    AllToAll,
    Array,
    Broadcast,
    Collective,
    Exchange,
    Exchanged,
    Mean,
    Meanwhile,
    Request,
    Results,
    Round,
    Sum,
)
from .spec import DTYPE_BYTES, GRADIENT_DTYPES, SUMMABLE_DTYPES, Spec, wide_dtype
from .state import Fill, Leaf, Leaves, Scope, State, initial_state, state_bytes, walk
from .traffic import Payload, Traffic, sent_bytes, traffic_bytes

__all__ = [
    "DTYPE_BYTES",
    "GRADIENT_DTYPES",
    "SUMMABLE_DTYPES",
    "AllGather",
    "AllToAll",
    "Array",
    "Broadcast",
    "Codec",
    "Collective",
    "Context",
    "Exchange",
    "Exchanged",
    "Fill",
    "Key",
    "Leaf",
    "Leaves",
    "Mean",
    "Meanwhile",
    "Operator",
    "Payload",
    "Request",
    "Results",
    "Round",
    "Scope",
    "Spec",
    "State",
    "Sum",
    "Traffic",
    "check_at_least",
    "check_choice",
    "check_codec",
    "check_compressor",
    "check_finite",
    "initial_state",
    "sent_bytes",
    "state_bytes",
    "traffic_bytes",
    "walk",
    "wide_dtype",
]
