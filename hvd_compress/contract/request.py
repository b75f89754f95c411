"""The collectives that an exchange can ask for.

An exchange yields a list of requests, one round; the driver answers with a list of results in the same order.

| request     | this rank hands in  | every rank gets back                                |
|-------------|---------------------|-----------------------------------------------------|
| `Mean`      | array of any shape  | the mean over ranks, same shape                      |
| `Sum`       | array of any shape  | the sum over ranks, same shape                       |
| `AllGather` | array of any shape  | (world_size, *shape): row i is what rank i handed in |
| `AllToAll`  | (world_size, ...)   | (world_size, ...): row i is what rank i addressed to this rank |
| `Broadcast` | array of any shape  | the array of rank `root`                             |
| `Meanwhile` | a function          | its value, computed while the round's others travel  |

All ranks must ask for the same kinds, shapes and element types in the same round. Only `SUMMABLE_DTYPES` can be
summed; the other collectives move bits and take any element type.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

# An array of NumPy, torch or TensorFlow; `hvd_compress.ops` knows which.
Array: TypeAlias = Any


@dataclass(frozen=True, eq=False)
class Mean:
    """The element-wise mean over ranks. With `donate` the driver may overwrite `array`."""

    array: Array
    donate: bool = False


@dataclass(frozen=True, eq=False)
class Sum:
    """The element-wise sum over ranks. With `donate` the driver may overwrite `array`."""

    array: Array
    donate: bool = False


@dataclass(frozen=True, eq=False)
class AllGather:
    """Every rank's array, stacked by rank."""

    array: Array


@dataclass(frozen=True, eq=False)
class AllToAll:
    """Row i goes to rank i; what comes back is row `rank` of every rank."""

    array: Array


@dataclass(frozen=True, eq=False)
class Broadcast:
    """The array of rank `root`."""

    array: Array
    root: int


@dataclass(frozen=True, eq=False)
class Meanwhile:
    """Local work to do while the round's collectives are under way."""

    work: Callable[[], Any]


Collective: TypeAlias = Mean | Sum | AllGather | AllToAll | Broadcast
Request: TypeAlias = Collective | Meanwhile
Round: TypeAlias = Sequence[Request]
Results: TypeAlias = list[Any]
Exchange: TypeAlias = Generator[Round, Results, "Exchanged"]


@dataclass(frozen=True, eq=False)
class Exchanged:
    """What one exchange ends with.

    Args:
        mean: what every rank applies, bit-identical on all ranks, in the gradient's shape and element type.
        rest: gradient minus this rank's contribution to `mean`; None stands for zeros, and may be returned
            whenever `Context.feedback` is false. Where all loss is this rank's own, the mean over ranks of
            (gradient - rest) is `mean`; what a second compression on the way back loses is in nobody's rest.
        state: the state to pass to the next step.
    """

    mean: Array
    rest: Array | None
    state: dict[str, Any]
