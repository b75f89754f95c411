"""The collectives that an exchange can ask for.

An exchange yields a list of requests, one round; the driver answers with a list of results in the same order.

| request     | this rank hands in  | every rank gets back                                |
|-------------|---------------------|-----------------------------------------------------|
| `Mean`      | array of any shape  | the mean over ranks, same shape                      |
| `Sum`       | array of any shape  | the sum over ranks, same shape                       |
| `AllGather` | array of any shape  | (world_size, *shape): row i is what rank i handed in |
| `AllToAll`  | (world_size, ...)   | (world_size, ...): row i is what rank i addressed to this rank |
| `Max`       | array of any shape  | the element-wise maximum over ranks, same shape      |
| `Broadcast` | array of any shape  | the array of rank `root`                             |
| `Swap`      | array of any shape  | the array of the rank that this one is paired with   |
| `Meanwhile` | a function          | its value, computed while the round's others travel  |
| `Batched`   | array of any shape  | an array operation of it, done at once for all units that ask for the same |

All ranks must ask for the same kinds, shapes and element types in the same round. Only `SUMMABLE_DTYPES` can be
summed; the other collectives move bits and take any element type. `Meanwhile` and `Batched` are local: no rank waits
for another. A round of `Batched` has nothing else in it, and is not counted as a round of collectives.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

# An array of NumPy, torch or TensorFlow; `hvd_compress.ops` knows which.
Array: TypeAlias = Any


@dataclass(frozen=True, eq=False)
class Mean:
    """The element-wise mean over ranks. With `donate` the driver may overwrite `array`.

    With `apart` it stays where it is if it is large, instead of being copied next to others that could travel with it.
    """

    array: Array
    donate: bool = False
    apart: bool = False


@dataclass(frozen=True, eq=False)
class Sum:
    """The element-wise sum over ranks. With `donate` the driver may overwrite `array`.

    With `apart` it stays where it is if it is large, instead of being copied next to others that could travel with it.
    """

    array: Array
    donate: bool = False
    apart: bool = False


@dataclass(frozen=True, eq=False)
class Max:
    """The element-wise maximum over ranks. With `donate` the driver may overwrite `array`.

    With `apart` it stays where it is if it is large, instead of being copied next to others that could travel with it.
    """

    array: Array
    donate: bool = False
    apart: bool = False


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
class Swap:
    """The array of rank `partner`, which gets this rank's; a rank without partner names itself.

    Args:
        array: what the partner gets.
        partner: partner(partner(rank)) = rank for every rank.
        pairing: name of the way in which ranks are paired, equal on all of them.
    """

    array: Array
    partner: int
    pairing: str


@dataclass(frozen=True, eq=False)
class Meanwhile:
    """Local work to do while the round's collectives are under way."""

    work: Callable[[], Any]


@dataclass(frozen=True, eq=False)
class Batched:
    """An array operation that is done at once for all units of the bucket that ask for it with equal shapes.

    Small factorisations cost their start more than their arithmetic, and models have many layers of equal shape. Every
    unit gets what it would have got alone.

    Args:
        operation: a method of `ArrayOps` that takes further leading axes.
        array: its argument.
    """

    operation: Literal["orthonormal_rows"]
    array: Array


Collective: TypeAlias = Mean | Sum | Max | AllGather | AllToAll | Broadcast | Swap
# What an allreduce does.
Reduction: TypeAlias = Mean | Sum | Max
Request: TypeAlias = Collective | Meanwhile | Batched
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
        positions: where a sparse exchange took elements of this rank's gradient from, as flat positions, for
            memories that mask them; None where that is everywhere.
        rest_is_finite: whether that is known, without looking at it; a wrapper that changes the rest clears it.
    """

    mean: Array
    rest: Array | None
    state: dict[str, Any]
    positions: Array | None = None
    rest_is_finite: bool = False
