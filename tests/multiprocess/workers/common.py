"""What the checks over Horovod share: parameters, gradients, and comparisons within and across ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import horovod.torch as stock
import numpy as np
import torch
from torch import nn

import hvd_compress.torch as hvd
from hvd_compress import Simulator
from hvd_compress.contract import walk
from hvd_compress.torch.transport import HorovodTransport

# Every kind of shape: matrices that rank 2 compresses, ones too small for it, vectors, a scalar, nothing at all.
SHAPES: dict[str, tuple[int, ...]] = {
    "scalar": (),
    "bias": (7,),
    "matrix": (24, 18),
    "twin": (24, 18),
    "conv": (12, 8, 3, 3),
    "odd": (5, 3),
    "wide": (2, 31),
    "tall": (33, 2),
    "empty": (0,),
    "hollow": (3, 0),
}
# Rounding of one exchange, relative to the largest number in it, with room for sums in another order.
ROUNDING = {torch.float64: 1e-13, torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def gradients(
    step: int,
    shapes: Mapping[str, tuple[int, ...]] = SHAPES,
    dtype: torch.dtype = torch.float32,
    size: int | None = None,
) -> list[dict[str, torch.Tensor]]:
    """Return the gradients of all ranks, different for every step and rank, the same wherever they are computed."""
    made = []
    for rank in range(stock.size() if size is None else size):
        draw = np.random.default_rng([17, step, rank])
        made.append({name: torch.tensor(draw.standard_normal(shape)).to(dtype) for name, shape in shapes.items()})
    return made


def parameters(
    shapes: Mapping[str, tuple[int, ...]] = SHAPES, dtype: torch.dtype = torch.float32
) -> dict[str, nn.Parameter]:
    """Return parameters of zeros, equal on all ranks."""
    return {name: nn.Parameter(torch.zeros(shape, dtype=dtype)) for name, shape in shapes.items()}


def distributed(params: Mapping[str, nn.Parameter], compression: Any, lr: float = 0.125, **options: Any) -> Any:
    """Return plain SGD on the parameters, made distributed by the package under test.

    Tensors are small here: they are compressed also where that sends more than a plain average.
    """
    plain = torch.optim.SGD(list(params.values()), lr=lr)
    options.setdefault("allow_larger", True)
    return hvd.DistributedOptimizer(plain, named_parameters=params.items(), compression=compression, **options)


def backward(
    params: Mapping[str, nn.Parameter], grads: Mapping[str, torch.Tensor], order: Sequence[str] | None = None
) -> None:
    """Run one backward pass per parameter, in the given order, that gives it exactly the given gradient."""
    for name in order or list(grads):
        (params[name] * grads[name]).sum().backward()


def exchange(
    optimizer: Any,
    params: Mapping[str, nn.Parameter],
    grads: Mapping[str, torch.Tensor],
    order: Sequence[str] | None = None,
) -> dict[str, torch.Tensor]:
    """Return the mean gradients that one backward pass and `synchronize` leave in the parameters."""
    backward(params, grads, order)
    optimizer.synchronize()
    means = {name: p.grad.detach().clone() for name, p in params.items() if p.grad is not None}
    optimizer.zero_grad()
    return means


def mean_of(all_gradients: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Return the mean over ranks, in float64."""
    return {name: torch.stack([own[name].double() for own in all_gradients]).mean(dim=0) for name in all_gradients[0]}


def assert_close(
    actual: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], tolerance: float | None = None
) -> None:
    """Check names, shapes, and numbers to within `tolerance` (rounding by default) x the largest number expected."""
    assert actual.keys() == expected.keys(), f"{sorted(actual)} is not {sorted(expected)}"
    for name, right in expected.items():
        found = actual[name].detach()
        assert found.shape == right.shape, f"{name}: shape {tuple(found.shape)} is not {tuple(right.shape)}"
        if right.numel() == 0:
            continue
        allowed = ROUNDING[found.dtype] if tolerance is None else tolerance
        error = (found.double().cpu() - right.detach().double().cpu()).abs().max().item()
        scale = right.detach().double().abs().max().item()
        assert error <= allowed * scale, f"{name}: off by {error:g}, allowed {allowed * scale:g}"


def assert_same_bits(actual: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """Check that nothing differs in a single bit."""
    assert actual.keys() == expected.keys(), f"{sorted(actual)} is not {sorted(expected)}"
    for name, right in expected.items():
        assert actual[name].dtype == right.dtype, f"{name}: {actual[name].dtype} is not {right.dtype}"
        assert _bits(actual[name]) == _bits(right), f"{name}: {actual[name]} is not {right}"


def gathered(item: Any, name: str) -> list[Any]:
    """Return one small picklable object of every rank, by rank; called by all ranks."""
    return HorovodTransport(stock.global_process_set).gather_objects(item, name)


def assert_equal_on_ranks(tensors: Mapping[str, torch.Tensor]) -> None:
    """Check that every rank holds the same bits."""
    everyone = gathered({name: _bits(x) for name, x in tensors.items()}, "equal_on_ranks")
    for rank, other in enumerate(everyone):
        differ = sorted(name for name in everyone[0] if other.get(name) != everyone[0][name])
        assert other.keys() == everyone[0].keys() and not differ, f"ranks 0 and {rank} differ in {differ}"


def _bits(x: torch.Tensor) -> bytes:
    # Cloned: one element with a stride of 0 counts as contiguous, but not for a view as bytes.
    flat = x.detach().cpu().clone(memory_format=torch.contiguous_format).reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()


@contextmanager
def raises(error: type[BaseException], *fragments: str) -> Iterator[None]:
    """Check that the block raises exactly this kind of error, with these words in its message."""
    try:
        yield
    except error as raised:
        assert type(raised) is error, f"{type(raised).__name__} is not {error.__name__}: {raised}"
        missing = [f for f in fragments if f not in str(raised)]
        assert not missing, f"{missing} is not in the message {str(raised)!r}"
        return
    raise AssertionError(f"{error.__name__} was not raised")


@contextmanager
def attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Set an attribute within the block."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def counted_collectives() -> Iterator[dict[str, int]]:
    """Count the collectives that reach Horovod, and the bytes handed to them, within the block."""
    counts = {"collectives": 0, "bytes": 0}

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            counts["collectives"] += 1
            counts["bytes"] += tensor.numel() * tensor.element_size()
            return function(tensor, *args, **kwargs)

        return counted

    names = ("allreduce_async", "allreduce_async_", "allgather_async", "alltoall_async", "broadcast_async")
    plain = {name: getattr(stock, name) for name in names}
    try:
        for name, function in plain.items():
            setattr(stock, name, counting(function))
        yield counts
    finally:
        for name, function in plain.items():
            setattr(stock, name, function)


class SmallCNN(nn.Module):
    """Two convolutions and a linear layer for 8 x 8 images in 10 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 12, 3, padding=1)
        self.last = nn.Linear(12 * 4, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.max_pool2d(torch.tanh(self.first(images)), 2)
        x = torch.nn.functional.max_pool2d(torch.tanh(self.second(x)), 2)
        return self.last(x.flatten(1))


def small_cnn(seed: int = 0, dtype: torch.dtype = torch.float32, device: str = "cpu") -> SmallCNN:
    """Return the same model wherever the seed is the same; the global random stream is put back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SmallCNN().to(dtype).to(device)


def batch(
    step: int, rank: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return this rank's images and labels of a step."""
    draw = np.random.default_rng([29, step, rank])
    labels = draw.integers(0, 10, 16)
    # Each class is brighter in a part of its own, so that there is something to learn.
    images = 0.5 * draw.standard_normal((16, 1, 8, 8))
    images.reshape(16, 64)[np.arange(16), labels * 6] += 3.0
    return torch.tensor(images).to(dtype).to(device), torch.tensor(labels).to(device)


def train(
    model: nn.Module,
    optimizer: Any,
    steps: int,
    dtype: torch.dtype = torch.float32,
    first: int = 0,
    device: str = "cpu",
) -> list[float]:
    """Train on this rank's batches and return its losses."""
    losses = []
    for step in range(first, first + steps):
        images, labels = batch(step, stock.rank(), dtype, device)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return copies of the parameters by name."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def check_against_the_simulator(compressor: Any, steps: int, tolerance: float, **options: Any) -> None:
    """Exchange the same gradients here and in the simulator: means, units and state are the same at the end."""
    params = parameters()
    optimizer = distributed(params, compressor, **options)
    simulator = Simulator(compressor, stock.size(), allow_larger=True)
    for step in range(steps):
        everyone = gradients(step)
        found = exchange(optimizer, params, everyone[stock.rank()])
        # The driver plans last parameter first, as backward makes the gradients.
        expected = simulator.step([dict(reversed(own.items())) for own in everyone])[stock.rank()]
        assert_close(found, {name: expected[name] for name in found}, tolerance)
        assert_equal_on_ranks(found)
    assert found.keys() == SHAPES.keys()
    assert optimizer.exchange.plan.units == simulator.plan.units
    states = [optimizer.exchange.state_dict(), simulator.workers[stock.rank()].state_dict()]
    mine, theirs = (dict(walk({name: unit["leaves"] for name, unit in state["units"].items()})) for state in states)
    assert mine.keys() == theirs.keys()
    assert_close(mine, theirs, tolerance)
