"""The rival of one reduction a step does what its algorithm says, and trains: it is no straw man."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hvd_compress import ConfigurationError
from hvd_compress.bench.network.models import Workload
from hvd_compress.bench.network.one_reduction import OneReduction
from hvd_compress.bench.network.rivals import trainee

SHAPES = ((6, 8), (6, 8), (8, 4, 2), (5,), ())


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.zeros(shape)) for shape in SHAPES]


def set_gradients(own: list[nn.Parameter], draw: torch.Generator) -> list[Tensor]:
    """Give all parameters new gradients; return copies of them."""
    for parameter in own:
        parameter.grad = torch.randn(parameter.shape, generator=draw)
    return [gradient_of(parameter).clone() for parameter in own]


def gradient_of(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def alone(buffer: Tensor) -> None:
    """Average of one."""


def test_full_rank_with_one_worker_changes_nothing() -> None:
    own = [nn.Parameter(torch.zeros(5, 5)), nn.Parameter(torch.zeros(5, 5)), nn.Parameter(torch.zeros(3))]
    reducer, draw = OneReduction(own, 5, alone, min_saving=0.0), torch.Generator().manual_seed(1)
    for _ in range(4):
        given = set_gradients(own, draw)
        reducer.exchange()
        for parameter, gradient in zip(own, given, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-4)


def averaging(workers: int) -> list[Callable[[Tensor], None]]:
    """Return functions that average among threads, in place."""
    barrier, buffers = threading.Barrier(workers, timeout=20), [torch.empty(0)] * workers

    def of(rank: int) -> Callable[[Tensor], None]:
        def average(buffer: Tensor) -> None:
            buffers[rank] = buffer.clone()
            barrier.wait()
            buffer.copy_(torch.stack(buffers).mean(0))
            barrier.wait()

        return average

    return [of(rank) for rank in range(workers)]


def test_workers_agree_and_nothing_is_lost() -> None:
    """Sum over time of what is applied + mean error = sum of mean gradients, for matrices and for what stays dense."""
    workers, steps = 3, 6
    everyone = [parameters() for _ in range(workers)]
    reducers = [OneReduction(own, 1, average) for own, average in zip(everyone, averaging(workers), strict=True)]
    given = [[torch.zeros(shape) for shape in SHAPES] for _ in range(workers)]
    applied = [[torch.zeros(shape) for shape in SHAPES] for _ in range(workers)]

    def work(rank: int) -> None:
        draw = torch.Generator().manual_seed(rank)
        for _ in range(steps):
            for total, gradient in zip(given[rank], set_gradients(everyone[rank], draw), strict=True):
                total += gradient
            reducers[rank].exchange()
            for total, parameter in zip(applied[rank], everyone[rank], strict=True):
                total += gradient_of(parameter)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    # Rank 1 pays for the matrices alone; they have errors.
    assert all(reducer.errors.keys() == set(own[:3]) for reducer, own in zip(reducers, everyone, strict=True))
    for place in range(len(SHAPES)):
        for rank in range(1, workers):
            assert torch.equal(applied[rank][place], applied[0][place])
        kept = [
            reducer.errors[own[place]].view(SHAPES[place])
            if own[place] in reducer.errors
            else torch.zeros(SHAPES[place])
            for reducer, own in zip(reducers, everyone, strict=True)
        ]
        got = applied[0][place] + sum(kept, torch.zeros(SHAPES[place])) / workers
        wanted = sum((total[place] for total in given), torch.zeros(SHAPES[place])) / workers
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
        assert place > 2 or max(float(error.abs().max()) for error in kept) > 0.1


def test_one_reduction_a_step_left_and_right_in_turn() -> None:
    own, sizes = parameters(), []
    reducer, draw = OneReduction(own, 1, lambda buffer: sizes.append(buffer.numel())), torch.Generator().manual_seed(0)
    for _ in range(4):
        set_gradients(own, draw)
        reducer.exchange()
    rows, columns, dense = 6 + 6 + 8, 8 + 8 + 8, 5 + 1
    assert sizes == [rows + dense, columns + dense] * 2


def test_it_trains() -> None:
    """At rank 1, with its error kept, it finds the matrix that plain descent finds."""
    draw = torch.Generator().manual_seed(0)
    wanted = torch.randn(12, 10, generator=draw)
    found = nn.Parameter(torch.zeros(12, 10))
    reducer, optimizer = OneReduction([found], 1, alone), torch.optim.SGD([found], lr=0.05)
    for _ in range(1500):
        optimizer.zero_grad()
        (0.5 * (found - wanted).square().sum()).backward()
        reducer.exchange()
        optimizer.step()
    error = (found.detach() - wanted).norm() / wanted.norm()
    assert float(error) < 1e-3


@pytest.mark.parametrize(
    "row", ["one-reduction", "one-reduction:0", "one-reduction:x", "ddp:int8", "ddp:powersgd", "horovod:int8", "other"]
)
def test_rows_that_are_none_are_refused(row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(2, 2)
    monkeypatch.setattr(nn.parallel, "DistributedDataParallel", lambda module, **options: module)
    with pytest.raises(ConfigurationError, match="give"):
        trainee(row, Workload(model, lambda made: made(torch.zeros(1, 2)).sum()))
