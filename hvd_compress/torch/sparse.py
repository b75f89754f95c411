"""Sparse gradients, as of `nn.Embedding(sparse=True)`, passed through as Horovod does: by gathering."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import horovod.torch as stock
import torch

from ..drivers import Transport
from ..drivers.transport import LoopbackTransport


def start_gather(
    gradient: torch.Tensor | None, parameter: torch.Tensor, name: str, average: bool, process_set: Any
) -> Callable[[], torch.Tensor]:
    """Start to gather a sparse gradient from all ranks; the function returned waits for the sum or mean."""
    if gradient is None or gradient._nnz() == 0:
        gradient = _nothing_but_a_zero(parameter, gradient)
    op = stock.Average if average else stock.Sum
    wait: Callable[[], torch.Tensor] = stock.sparse_allreduce_async(gradient, name=name, op=op, process_set=process_set)
    return wait


def is_alone(transport: Transport) -> bool:
    """Return whether there is nobody to gather from."""
    return isinstance(transport, LoopbackTransport)


def _nothing_but_a_zero(parameter: torch.Tensor, gradient: torch.Tensor | None) -> torch.Tensor:
    """Return a sparse zero with one element: Gloo never ends a gather of nothing."""
    sparse_dim = 1 if gradient is None else gradient.sparse_dim()
    indices = torch.zeros((sparse_dim, 1), dtype=torch.int64, device=parameter.device)
    values = torch.zeros((1, *parameter.shape[sparse_dim:]), dtype=parameter.dtype, device=parameter.device)
    return torch.sparse_coo_tensor(indices, values, parameter.shape)
