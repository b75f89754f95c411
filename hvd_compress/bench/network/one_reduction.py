"""One reduction a step: low-rank compression in the structure of the open implementation of PowerSGD, as a rival.

The structure is that of github.com/epfml/powersgd: matrices of equal shape in one batch, one factor of every matrix a
step, left and right in turn, all of them in one flat buffer that is averaged once, and the error kept in the buffer
that gradients are added to. Here vectors travel in that same buffer, where that implementation averages them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor


@final
@dataclass(frozen=True)
class _Batch:
    """Matrices of one shape; left @ right^T approximates them."""

    parameters: list[torch.nn.Parameter]
    memory: Tensor
    left: Tensor
    right: Tensor
    mean: Tensor


@final
class OneReduction:
    """Averages gradients among workers with one reduction a step, keeping what the approximation lacks.

    Even steps: Q = orth(Q); P = M Q; update = mean(P) Q^T. Odd steps: P = orth(P); Q = M^T P; update = P mean(Q)^T.
    M = gradient + error; error = M - (own factor) (other factor)^T.

    Args:
        parameters: with gradients after backward; tensors are seen as matrices of shape[0] rows.
        rank: of the approximation, >= 1.
        average: averages a flat tensor among the workers, in place.
        min_saving: matrices that factors do not make so many times smaller are averaged as they are.
        seed: of the factors, equal on all workers.

    Source: Vogels, Karimireddy, Jaggi 2020 (arXiv:2008.01425), Algorithm 2.
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        rank: int,
        average: Callable[[Tensor], object],
        min_saving: float = 2.0,
        seed: int = 0,
    ) -> None:
        self._average = average
        self._step = 0
        self._dense: list[torch.nn.Parameter] = []
        by_shape: dict[tuple[int, int], list[torch.nn.Parameter]] = {}
        for parameter in parameters:
            rows = parameter.shape[0] if parameter.dim() > 1 else 1
            columns = parameter.numel() // rows
            if parameter.dim() > 1 and parameter.numel() >= min_saving * min(rank, rows, columns) * (rows + columns):
                by_shape.setdefault((rows, columns), []).append(parameter)
            else:
                self._dense.append(parameter)
        draw = torch.Generator().manual_seed(seed)
        self._batches = [_batch(group, shape, rank, draw) for shape, group in by_shape.items()]

    @torch.no_grad()
    def exchange(self) -> None:
        """Replace all gradients by what is applied."""
        even = self._step % 2 == 0
        self._step += 1
        sent = [batch.left if even else batch.right for batch in self._batches]
        for batch in self._batches:
            self._compress(batch, even)
        dense = [_gradient(parameter) for parameter in self._dense]
        # One buffer, in which factors and gradients have their places.
        buffer = torch.cat([part.reshape(-1) for part in (*sent, *dense)])
        self._average(buffer)
        averaged = torch.split(buffer, [part.numel() for part in (*sent, *dense)])
        for part, found in zip((*sent, *dense), averaged, strict=True):
            part.copy_(found.view_as(part))
        for batch in self._batches:
            torch.bmm(batch.left, batch.right.mT, out=batch.mean)
            for parameter, mean in zip(batch.parameters, batch.mean, strict=True):
                parameter.grad = mean.view_as(parameter)

    @staticmethod
    def _compress(batch: _Batch, even: bool) -> None:
        gradients = [_gradient(parameter).view_as(memory) for parameter, memory in _members(batch)]
        torch._foreach_add_([memory for _, memory in _members(batch)], gradients)
        if even:
            batch.right.copy_(torch.linalg.qr(batch.right).Q)
            torch.bmm(batch.memory, batch.right, out=batch.left)
        else:
            batch.left.copy_(torch.linalg.qr(batch.left).Q)
            torch.bmm(batch.memory.mT, batch.left, out=batch.right)
        # Of this worker's own factor, before the mean takes its place.
        batch.memory.baddbmm_(batch.left, batch.right.mT, alpha=-1.0)

    @property
    def errors(self) -> dict[torch.nn.Parameter, Tensor]:
        """What was not applied yet, of every compressed parameter."""
        return {parameter: memory for batch in self._batches for parameter, memory in _members(batch)}


def _batch(parameters: list[torch.nn.Parameter], shape: tuple[int, int], rank: int, draw: torch.Generator) -> _Batch:
    rows, columns = shape
    count, width = len(parameters), min(rank, *shape)
    # The factor that is made orthonormal first is the right one; the left one is written before it is read.
    right = torch.randn(count, columns, width, generator=draw)
    memory = torch.zeros(count, rows, columns)
    return _Batch(parameters, memory, torch.zeros(count, rows, width), right, torch.empty(count, *shape))


def _members(batch: _Batch) -> list[tuple[torch.nn.Parameter, Tensor]]:
    return list(zip(batch.parameters, batch.memory, strict=True))


def _gradient(parameter: torch.nn.Parameter) -> Tensor:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad
