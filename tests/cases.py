"""The table of cases, and its axes: compressors x array libraries x numbers of workers.

A new compressor is one more row; every generic law then holds it to account.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from oracles.rounding import FORMATS

import hvd_compress as hc
from hvd_compress import (
    AllReduce,
    AlternatingLowRank,
    BestLowRank,
    Cast,
    ErrorFeedback,
    HorovodCompressor,
    Identity,
    LowRank,
    PowerSGD,
    TwoWay,
    Warmup,
)

WORLD_SIZES = (1, 2, 3, 4)

# One small model that holds every kind of shape; "matrix" and "twin" must not be taken for one another.
MODEL: dict[str, tuple[int, ...]] = {
    "scalar": (),
    "bias": (7,),
    "matrix": (12, 9),
    "twin": (12, 9),
    "conv": (6, 4, 3, 3),
    "wide": (2, 31),
    "tall": (33, 2),
    "single": (1, 1),
    "empty": (3, 0),
}

EPSILON = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}


@dataclass(frozen=True)
class Library:
    """An array library on a device, reached without the package under test."""

    name: str
    device: str = "cpu"

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The gradient element types that the library has."""
        return ("float16", "float32", "float64") if self.name == "numpy" else tuple(EPSILON)

    def array(self, values: Any, dtype: str = "float32") -> Any:
        """Return a new array of the given numbers."""
        if self.name == "numpy":
            return np.array(values, dtype)
        return torch.tensor(np.asarray(values, np.float64), device=self.device).to(getattr(torch, dtype))

    def arrays(self, values: Sequence[Mapping[str, Any]], dtype: str = "float32") -> list[dict[str, Any]]:
        """Return every worker's gradients as new arrays."""
        return [{name: self.array(x, dtype) for name, x in own.items()} for own in values]


NUMPY, TORCH, CUDA = Library("numpy"), Library("torch"), Library("torch", "cuda")


def wide(x: Any) -> np.ndarray:
    """Return the numbers in x as float64 NumPy."""
    if isinstance(x, torch.Tensor):
        return x.detach().cpu().to(torch.float64).numpy().copy()
    return np.array(x, np.float64)


def bits(x: Any) -> bytes:
    """Return the bits of x; equal for equal arrays only."""
    if isinstance(x, torch.Tensor):
        return x.detach().cpu().flatten().clone().view(torch.uint8).numpy().tobytes() if x.numel() else b""
    return np.ascontiguousarray(x).tobytes()


def dtype_of(x: Any) -> str:
    """Return the element type's name."""
    return str(x.dtype).removeprefix("torch.")


def normal_gradients(
    world_size: int, step: int = 0, shapes: Mapping[str, tuple[int, ...]] = MODEL, seed: int = 0
) -> list[dict[str, np.ndarray]]:
    """Return every worker's gradients, float64, different for every step and worker."""
    generators = [np.random.default_rng([seed, step, rank]) for rank in range(world_size)]
    return [{name: g.standard_normal(shape) for name, shape in shapes.items()} for g in generators]


def assert_close(actual: Any, expected: Any, tolerance: float, scale: float | None = None) -> None:
    """Check that no element differs by more than `tolerance` x `scale`: by default the largest number expected."""
    actual, expected = wide(actual), wide(expected)
    assert actual.shape == expected.shape
    reference = np.abs(expected).max(initial=0.0) if scale is None else scale
    error = np.abs(actual - expected).max(initial=0.0)
    assert error <= tolerance * reference, f"off by {error:g}, allowed {tolerance * reference:g}"


class HalfPrecision:
    """A compressor written for Horovod's own API, by a third party."""

    @staticmethod
    def compress(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.dtype]:
        return tensor.to(torch.float16), tensor.dtype

    @staticmethod
    def decompress(tensor: torch.Tensor, ctx: torch.dtype) -> torch.Tensor:
        return tensor.to(ctx)


@dataclass(frozen=True)
class RoundedTo:
    """A compressor for Horovod's own API whose settings live on the instance."""

    dtype: str

    def compress(self, tensor: torch.Tensor) -> tuple[torch.Tensor, torch.dtype]:
        return tensor.to(getattr(torch, self.dtype)), tensor.dtype

    def decompress(self, tensor: torch.Tensor, ctx: torch.dtype) -> torch.Tensor:
        return tensor.to(ctx)


Bound = Callable[[int, int], float]


@dataclass(frozen=True)
class Row:
    """One compressor, and what is true of it.

    Args:
        id: of the test.
        compressor: an instance.
        linear: W workers give what one worker with the mean gradient gives.
        exact: its means are plain averages.
        wire: the 16-bit format in which values travel; None where they travel as they are.
        memory: (a, b) of its error feedback; None without.
        bound: of ||M - C(M)||^2 / ||M||^2 for an n x m matrix and an empty memory, on one worker.
        factors: whether matrices travel as low-rank factors, whose products need more care in comparisons.
        libraries: the array libraries that it works on.
        refuses: gradient element types that it cannot carry, and says so.
    """

    id: str
    compressor: Any
    linear: bool = False
    exact: bool = False
    wire: str | None = None
    memory: tuple[float, float] | None = None
    bound: Bound = lambda n, m: 1.0
    factors: bool = False
    libraries: tuple[str, ...] = ("numpy", "torch")
    refuses: tuple[str, ...] = ()

    def dtypes(self, library: Library) -> tuple[str, ...]:
        """Return the gradient element types of the library that it takes."""
        return tuple(dtype for dtype in library.dtypes if dtype not in self.refuses)

    @property
    def rounding(self) -> float:
        """The largest relative error of a number on the wire."""
        return FORMATS[self.wire].unit_roundoff if self.wire else 0.0

    @property
    def largest(self) -> float:
        """A number near the largest whose mean must stay finite in float32."""
        return 6e4 if self.wire == "float16" else 1e30

    def tolerance(self, dtype: str = "float32") -> float:
        """Return the relative error to allow where float64 arithmetic would give equality."""
        return (500 if self.factors else 8) * EPSILON[dtype] + 4 * self.rounding


def _exact(name: str, compressor: Any, **more: Any) -> Row:
    return Row(name, compressor, linear=True, exact=True, bound=lambda n, m: 0.0, **more)


def _cast(name: str, compressor: Any, wire: str, memory: tuple[float, float] | None = None, **more: Any) -> Row:
    roundoff = FORMATS[wire].unit_roundoff
    return Row(name, compressor, wire=wire, memory=memory, bound=lambda n, m: (2 * roundoff) ** 2, **more)


def _factors(name: str, compressor: Any, memory: tuple[float, float] | None = None, **more: Any) -> Row:
    return Row(name, compressor, linear=True, memory=memory, factors=True, **more)


def _best(rank: int) -> Bound:
    return lambda n, m: 1.0 - min(rank, n, m) / min(n, m)


ROWS = [
    _exact("identity", Identity()),
    _cast("fp16", Cast(), "float16"),
    _cast("bf16", Cast("bfloat16"), "bfloat16"),
    _exact("allreduce-identity", AllReduce(Identity()), refuses=("bfloat16",)),
    _cast("allreduce-fp16", AllReduce(Cast("float16")), "float16"),
    _exact("two-way-identity", TwoWay(Identity())),
    _cast("two-way-fp16", TwoWay(Cast("float16")), "float16"),
    _cast("two-way-bf16", TwoWay(Cast("bfloat16")), "bfloat16"),
    _factors("low-rank", LowRank()),
    _factors("low-rank-1-seed", LowRank(rank=1, seed=3)),
    _factors("low-rank-2-all", LowRank(rank=2, min_saving=0.0)),
    _factors("low-rank-cold", LowRank(rank=2, warm_start=False)),
    _factors("low-rank-cold-same-q", LowRank(rank=2, warm_start=False, resample=False)),
    _factors("low-rank-3-iterations", LowRank(rank=2, power_iterations=3)),
    _exact("low-rank-full", LowRank(rank=64, min_saving=0.0), factors=True),
    _factors("alternating", AlternatingLowRank()),
    _factors("alternating-3-all-seed", AlternatingLowRank(rank=3, min_saving=0.0, seed=5)),
    _factors("best", BestLowRank(), bound=_best(4)),
    _factors("best-1-all", BestLowRank(rank=1, min_saving=0.0), bound=_best(1)),
    _exact("best-full", BestLowRank(rank=64, min_saving=0.0), factors=True),
    _cast("warmup-codec", Warmup(2, Cast("bfloat16")), "bfloat16"),
    _factors("warmup-low-rank", Warmup(2, LowRank(rank=2))),
    _factors("warmup-alternating", Warmup(1, AlternatingLowRank(rank=2))),
    _exact("warmup-for-ever", Warmup(99, LowRank(rank=1, min_saving=0.0))),
    _exact("feedback-identity", ErrorFeedback(Identity()), memory=(1.0, 1.0)),
    _cast("feedback-fp16", ErrorFeedback(Cast("float16")), "float16", memory=(1.0, 1.0)),
    _cast("feedback-bf16", ErrorFeedback(Cast("bfloat16")), "bfloat16", memory=(1.0, 1.0)),
    _cast("feedback-two-way-fp16", ErrorFeedback(TwoWay(Cast())), "float16", memory=(1.0, 1.0)),
    _factors("feedback-low-rank", ErrorFeedback(LowRank(rank=2)), memory=(1.0, 1.0)),
    _factors("feedback-low-pass", ErrorFeedback(LowRank(rank=2), a=0.1, b=1.0), memory=(0.1, 1.0)),
    _factors("feedback-forgetting", ErrorFeedback(LowRank(rank=2), a=1.0, b=0.9), memory=(1.0, 0.9)),
    _factors("feedback-halves", ErrorFeedback(LowRank(rank=2), a=0.5, b=0.5), memory=(0.5, 0.5)),
    _cast("feedback-fp16-low-pass", ErrorFeedback(Cast(), a=0.5), "float16", memory=(0.5, 1.0)),
    _factors("feedback-alternating", ErrorFeedback(AlternatingLowRank(rank=2)), memory=(1.0, 1.0)),
    _factors("feedback-best", ErrorFeedback(BestLowRank(rank=2)), memory=(1.0, 1.0), bound=_best(2)),
    _factors("feedback-warmup", ErrorFeedback(Warmup(2, LowRank(rank=2))), memory=(1.0, 1.0)),
    _factors("powersgd", PowerSGD(), memory=(1.0, 1.0)),
    _factors("powersgd-2-seed", PowerSGD(rank=2, seed=7), memory=(1.0, 1.0)),
    _factors("powersgd-1-all", PowerSGD(rank=1, min_saving=0.0), memory=(1.0, 1.0)),
    _factors("powersgd-cold", PowerSGD(rank=2, warm_start=False), memory=(1.0, 1.0)),
    _factors("powersgd-cold-same-q", PowerSGD(rank=2, warm_start=False, resample=False), memory=(1.0, 1.0)),
    _factors("powersgd-2-iterations", PowerSGD(rank=2, power_iterations=2), memory=(1.0, 1.0)),
    _factors("powersgd-no-feedback", PowerSGD(rank=2, error_feedback=False)),
    _factors("powersgd-alternate", PowerSGD(rank=2, alternate=True), memory=(1.0, 1.0)),
    _factors("powersgd-start-after", PowerSGD(rank=2, start_after=2), memory=(1.0, 1.0)),
    _factors("powersgd-alternate-odd", PowerSGD(rank=2, alternate=True, start_after=1), memory=(1.0, 1.0)),
    _exact("powersgd-full", PowerSGD(rank=64, min_saving=0.0), memory=(1.0, 1.0), factors=True),
    _cast("horovod-api", HorovodCompressor("cases:HalfPrecision"), "float16", libraries=("torch",)),
    _cast("horovod-instance", HorovodCompressor.of(RoundedTo("float16")), "float16", libraries=("torch",)),
    _cast(
        "feedback-horovod-api",
        ErrorFeedback(HorovodCompressor("cases:HalfPrecision")),
        "float16",
        memory=(1.0, 1.0),
        libraries=("torch",),
    ),
]

if importlib.util.find_spec("horovod") is not None:
    _STOCK = "horovod.torch.compression"
    ROWS += [
        _cast("horovod-fp16", HorovodCompressor(f"{_STOCK}:FP16Compressor"), "float16", libraries=("torch",)),
        _exact(
            "horovod-none",
            HorovodCompressor(f"{_STOCK}:NoneCompressor"),
            libraries=("torch",),
            refuses=("bfloat16",),
        ),
    ]


def simulator_of(row: Row, world_size: int, **more: Any) -> hc.Simulator:
    """Return workers that use the row's compressor on gradients however small, so that its laws are tried on them."""
    return hc.Simulator(row.compressor, world_size, allow_larger=True, **more)


def public_compressors() -> list[type]:
    """Return every compressor class that the package exports, but for the two contracts."""
    exported = (getattr(hc, name) for name in hc.__all__)
    classes = [item for item in exported if isinstance(item, type) and issubclass(item, (hc.Operator, hc.Codec))]
    return [item for item in classes if item not in (hc.Operator, hc.Codec)]


def parts_of(compressor: Any) -> list[Any]:
    """Return a compressor and everything that it is made of."""
    inner = [value for value in vars(compressor).values() if isinstance(value, (hc.Operator, hc.Codec))]
    return [compressor, *(part for item in inner for part in parts_of(item))]
