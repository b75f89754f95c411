"""Everything that `horovod.keras` is, on Keras 3 and with compression: `import hvd_compress.keras as hvd`.

Names that must know of compression or of Keras 3 are ours; every other name is Horovod's own.
"""

from typing import Any, NoReturn

try:
    import horovod.keras as _keras
    import horovod.tensorflow.keras as _tensorflow_keras
except ImportError as error:
    raise ImportError(
        "hvd_compress.keras needs TensorFlow, Keras 3 and Horovod built with TensorFlow; run `python -m hvd_compress "
        "check` to see what is missing."
    ) from error

from ..horovod.open_mpi import tell_where_it_lies
from ..tensorflow.broadcast import broadcast_variables, refuse_global_variables
from . import callbacks, elastic
from .distributed_optimizer import DistributedOptimizer, PartialDistributedOptimizer
from .saving import load_model
from .sync_batch_normalization import SyncBatchNormalization

tell_where_it_lies()

# Horovod spells it in two ways, which differ in a few names.
_stock = (_tensorflow_keras, _keras)

__all__ = [
    "DistributedOptimizer",
    "PartialDistributedOptimizer",
    "SyncBatchNormalization",
    "broadcast_global_variables",
    "broadcast_variables",
    "callbacks",
    "elastic",
    "load_model",
]
__all__ += sorted({name for module in _stock for name in dir(module) if not name.startswith("_")} - set(__all__))


def broadcast_global_variables(root_rank: int) -> NoReturn:
    """Raises ConfigurationError: Keras 3 runs on TensorFlow 2, which has no global variables."""
    del root_rank
    refuse_global_variables()


def __getattr__(name: str) -> Any:
    for module in _stock:
        if hasattr(module, name):
            return getattr(module, name)
    raise AttributeError(f"Neither hvd_compress.keras nor horovod.keras has {name!r}.")


def __dir__() -> list[str]:
    return sorted(set(__all__))
