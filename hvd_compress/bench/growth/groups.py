"""Groups: rows whose gradients and state fit into memory side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ...contract import Spec
from ...description import describe
from ...errors import ConfigurationError

# Of the memory that is there when it is asked for: others use some, and allocators do not give all back.
_SHARE = 0.7
# Times the gradient, whatever the rows are: parameters, gradients of Horovod's own, buffers that one exchange works in.
_SHARED = 1 + 1 + 3


def make_groups(
    compressors: Sequence[str], shapes: Mapping[str, tuple[int, ...]], workers: int, room: int
) -> list[tuple[str, ...]]:
    """Return the compressors in groups, in their order, as few as possible if that is kept.

    A row keeps its gradients and what the compressor declares as state; see `describe`.

    Args:
        compressors: names, with settings if any.
        shapes: of the model's parameters, of float32.
        workers: that exchange.
        room: bytes that are free for one worker.

    Raises:
        ConfigurationError: memory is short for a row alone.
    """
    gradient = 4 * sum(math.prod(shape) for shape in shapes.values())
    specs = [(name, Spec(shape)) for name, shape in shapes.items()]
    groups: list[list[str]] = []
    left = 0.0
    for name in compressors:
        needed = gradient + describe(name, specs, workers).state_bytes
        if not groups or needed > left:
            groups.append([])
            left = _SHARE * room - _SHARED * gradient
        left -= needed
        if left < 0:
            raise ConfigurationError(
                f"{name}: {gradient // 4:,} parameters need {(needed + _SHARED * gradient) / 1e9:.1f} GB for each of "
                f"{workers} workers, and {_SHARE * room / 1e9:.1f} GB are free; measure fewer parameters or workers."
            )
        groups[-1].append(name)
    return [tuple(group) for group in groups] or [()]
