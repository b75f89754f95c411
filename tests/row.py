"""What a row of the table of cases says of its compressor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from oracles.rounding import FORMATS

EPSILON = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}


@dataclass(frozen=True)
class Library:
    """An array library on a device, reached without the package under test."""

    name: str
    device: str = "cpu"

    @property
    def output_axis(self) -> Literal[0, -1]:
        """The axis of output features of a gradient, which says as what matrix it is seen."""
        return -1 if self.name == "tensorflow" else 0

    @property
    def denormals(self) -> bool:
        """Whether the library knows numbers too small for a normal mantissa; TensorFlow takes them for zero."""
        return self.name != "tensorflow"

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The gradient element types that the library has."""
        return ("float16", "float32", "float64") if self.name == "numpy" else tuple(EPSILON)

    def array(self, values: Any, dtype: str = "float32") -> Any:
        """Return a new array of the given numbers."""
        if self.name == "numpy":
            return np.array(values, dtype)
        if self.name == "tensorflow":
            import tensorflow as tf

            exact = np.asarray(values)
            return tf.cast(tf.constant(np.array(exact, np.float64 if exact.dtype.kind == "f" else np.int64)), dtype)
        return torch.tensor(np.asarray(values, np.float64), device=self.device).to(getattr(torch, dtype))

    def arrays(self, values: Sequence[Mapping[str, Any]], dtype: str = "float32") -> list[dict[str, Any]]:
        """Return every worker's gradients as new arrays."""
        return [{name: self.array(x, dtype) for name, x in own.items()} for own in values]


NUMPY, TORCH, CUDA = Library("numpy"), Library("torch"), Library("torch", "cuda")
TENSORFLOW = Library("tensorflow")
HOST = (NUMPY, TORCH, TENSORFLOW)


def is_tensorflow(x: Any) -> bool:
    """Return whether x is a tensor of TensorFlow, without importing it."""
    return type(x).__module__.startswith("tensorflow.")


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
        joined: it works on several tensors at once, so that a parameter sees the others.
        sparse: it sends a few elements a step: a layer may be silent at one step, but not over many.
        random: it rounds or picks at random: `bound` holds on average over draws.
        unbiased: the mean of its update over draws is the mean gradient.
        votes: its update is a direction, not an average of gradients.
        momentum: its update has gradients of earlier steps in it by momentum, not by a residual.
        server: a server on every rank keeps what it loses itself, in a leaf named "server".
        sharded: what it picks depends on how tensors are cut into shards, and so on the number of workers.
        rate: the learning rate to simulate with, where it needs one.
        parameters: whether it needs parameters.
        flat: what a worker sends does not grow with the number of workers.
    """

    id: str
    compressor: Any
    linear: bool = False
    exact: bool = False
    wire: str | None = None
    memory: tuple[float, float] | None = None
    bound: Bound = lambda n, m: 1.0
    factors: bool = False
    libraries: tuple[str, ...] = ("numpy", "torch", "tensorflow")
    refuses: tuple[str, ...] = ()
    joined: bool = False
    sparse: bool = False
    random: bool = False
    unbiased: bool = False
    votes: bool = False
    momentum: bool = False
    server: bool = False
    sharded: bool = False
    rate: float | None = None
    parameters: bool = False
    flat: bool = True

    # Which laws a row is held to: a test marked `rows("steady")` runs for the rows where `steady` holds.

    @property
    def averages(self) -> bool:
        """Its update approximates an average of gradients; a vote is a direction without size."""
        return not self.votes

    @property
    def steady(self) -> bool:
        """Every layer is in every update; a sparse row may pass one over, to send it at a later step."""
        return not self.votes and not self.sparse

    @property
    def separable(self) -> bool:
        """A parameter's update depends on its own gradients alone; a joined row picks from or scales several."""
        return not self.joined

    @property
    def settled(self) -> bool:
        """A rounding error in the gradient makes one of its size in the update, and turns no decision."""
        return not (self.sparse or self.random or self.votes)

    @property
    def additive(self) -> bool:
        """Its update is, up to `tolerance`, a sum of every worker's share, so that zeros add nothing to it.

        A leader or a server that picks, scales or rounds at random sees the zeros too.
        """
        return self.linear or self.exact or (self.wire is not None and self.settled)

    @property
    def whole(self) -> bool:
        """The number of workers changes nothing in what is picked."""
        return not self.sharded

    @property
    def drawless(self) -> bool:
        """Equal gradients make equal updates: nothing is drawn."""
        return not self.random

    def dtypes(self, library: Library) -> tuple[str, ...]:
        """Return the gradient element types of the library that it takes."""
        return tuple(dtype for dtype in library.dtypes if dtype not in self.refuses)

    @property
    def rounding(self) -> float:
        """The largest relative error of a number on the wire."""
        return FORMATS[self.wire].unit_roundoff if self.wire else 0.0

    @property
    def largest(self) -> float:
        """A number near the largest whose mean must stay finite in float32; momentum adds up many of them."""
        return (6e4 if self.wire == "float16" else 1e30) * (0.05 if self.momentum else 1.0)

    def tolerance(self, dtype: str = "float32") -> float:
        """Return the relative error to allow where float64 arithmetic would give equality."""
        return (500 if self.factors else 8) * EPSILON[dtype] + 4 * self.rounding


def exact(name: str, compressor: Any, **more: Any) -> Row:
    return Row(name, compressor, linear=True, exact=True, bound=lambda n, m: 0.0, **more)


def cast(name: str, compressor: Any, wire: str, memory: tuple[float, float] | None = None, **more: Any) -> Row:
    roundoff = FORMATS[wire].unit_roundoff
    return Row(name, compressor, wire=wire, memory=memory, bound=lambda n, m: (2 * roundoff) ** 2, **more)


def factors(name: str, compressor: Any, memory: tuple[float, float] | None = None, **more: Any) -> Row:
    return Row(name, compressor, linear=True, memory=memory, factors=True, **more)
