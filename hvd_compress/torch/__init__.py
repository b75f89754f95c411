"""Everything that `horovod.torch` is, with compression: `import hvd_compress.torch as hvd`.

Names that must know of compression are ours; every other name is Horovod's own.
"""

from typing import Any

try:
    import horovod.torch as _stock
except ImportError as error:
    raise ImportError(
        "hvd_compress.torch needs Horovod built with torch; run `python -m hvd_compress check` to see what is missing."
    ) from error

from ..horovod.open_mpi import tell_where_it_lies
from .distributed_optimizer import DistributedOptimizer
from .gradient_exchange import GradientExchange
from .replacements import broadcast_optimizer_state, join

tell_where_it_lies()

__all__ = [
    "DistributedOptimizer",
    "GradientExchange",
    "broadcast_optimizer_state",
    "join",
    *(name for name in dir(_stock) if not name.startswith("_")),
]


def __getattr__(name: str) -> Any:
    try:
        return getattr(_stock, name)
    except AttributeError:
        raise AttributeError(f"Neither hvd_compress.torch nor horovod.torch has {name!r}.") from None


def __dir__() -> list[str]:
    return sorted(set(__all__))
