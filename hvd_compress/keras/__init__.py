"""Everything that `horovod.keras` is, on Keras 3 and with compression: `import hvd_compress.keras as hvd`.

Names that must know of compression or of Keras 3 are ours; every other name is Horovod's own.
"""

from typing import Any

try:
    import horovod.keras as _keras
    import horovod.tensorflow.keras as _tensorflow_keras
except ImportError as error:
    raise ImportError(
        "hvd_compress.keras needs TensorFlow, Keras 3 and Horovod built with TensorFlow; run `python -m hvd_compress "
        "check` to see what is missing."
    ) from error

from ..horovod.open_mpi import tell_where_it_lies
from . import callbacks, elastic
from .distributed_optimizer import DistributedOptimizer, PartialDistributedOptimizer
from .saving import load_model

tell_where_it_lies()

# Horovod spells it in two ways, which differ in a few names.
_stock = (_tensorflow_keras, _keras)

__all__ = [
    "DistributedOptimizer",
    "PartialDistributedOptimizer",
    "callbacks",
    "elastic",
    "load_model",
    *sorted(
        {name for module in _stock for name in dir(module) if not name.startswith("_")}
        - {"DistributedOptimizer", "PartialDistributedOptimizer", "callbacks", "elastic", "load_model"}
    ),
]


def __getattr__(name: str) -> Any:
    for module in _stock:
        if hasattr(module, name):
            return getattr(module, name)
    raise AttributeError(f"Neither hvd_compress.keras nor horovod.keras has {name!r}.")


def __dir__() -> list[str]:
    return sorted(set(__all__))
