"""Everything that `horovod.tensorflow` is, with compression: `import hvd_compress.tensorflow as hvd`.

Names that must know of compression are ours; every other name is Horovod's own.
"""

import importlib
from typing import Any

try:
    import horovod.tensorflow as _stock
except ImportError as error:
    raise ImportError(
        "hvd_compress.tensorflow needs Horovod built with TensorFlow; run `python -m hvd_compress check` to see what "
        "is missing."
    ) from error

from ..horovod.open_mpi import tell_where_it_lies
from .broadcast import broadcast_global_variables, broadcast_variables
from .compression_state import CompressionState
from .distributed_gradient_tape import DistributedGradientTape, PartialDistributedGradientTape
from .distributed_optimizer import DistributedOptimizer
from .gradient_exchange import GradientExchange
from .join import join
from .variable_exchange import VariableExchange

tell_where_it_lies()

__all__ = [
    "CompressionState",
    "DistributedGradientTape",
    "DistributedOptimizer",
    "GradientExchange",
    "PartialDistributedGradientTape",
    "VariableExchange",
    "broadcast_global_variables",
    "broadcast_variables",
    "join",
    *(name for name in dir(_stock) if not name.startswith("_") and name != "keras"),
]


def __getattr__(name: str) -> Any:
    if name == "keras":  # ours also where Horovod's is loaded
        return importlib.import_module(f"{__name__}.keras")
    if name == "SyncBatchNormalization":  # Horovod's for tf_keras, ours for Keras 3
        return importlib.import_module(f"{__name__}.keras").SyncBatchNormalization
    try:
        return getattr(_stock, name)
    except AttributeError:
        raise AttributeError(f"Neither hvd_compress.tensorflow nor horovod.tensorflow has {name!r}.") from None


def __dir__() -> list[str]:
    return sorted(set(__all__))
