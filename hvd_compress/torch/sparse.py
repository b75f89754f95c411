"""Sparse gradients, as of `nn.Embedding(sparse=True)`, passed through as Horovod does: by gathering."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import horovod.torch as stock
import torch

from .waiting import wait_for

# The row of a placeholder: Gloo never ends a gather of nothing, so a rank with nothing sends this, and all drop it.
NO_ROW = -1


def start_gather(
    gradient: torch.Tensor | None, parameter: torch.Tensor, name: str, average: bool, process_set: Any
) -> Callable[[], torch.Tensor]:
    """Start to gather a sparse gradient from all ranks; the function returned waits for the sum or mean.

    Args:
        gradient: this rank's, sparse in rows; None where it has none.
        parameter: gives shape, element type and device.
        name: equal on all ranks.
        average: divide by the number of ranks.
        process_set: Horovod's.
    """
    rows, values = _entries(gradient, parameter)
    rows_under_way = stock.allgather_async(rows, name=f"{name}.rows", process_set=process_set)
    values_under_way = stock.allgather_async(values, name=f"{name}.values", process_set=process_set)

    def wait() -> torch.Tensor:
        all_rows, all_values = wait_for(rows_under_way), wait_for(values_under_way)
        real = all_rows[:, 0] != NO_ROW
        all_values = all_values[real] / process_set.size() if average else all_values[real]
        return torch.sparse_coo_tensor(all_rows[real].t(), all_values, parameter.shape, check_invariants=False)

    return wait


def _entries(gradient: torch.Tensor | None, parameter: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return indices (entries, sparse dimensions) and values (entries, ...), at least one entry."""
    if gradient is not None and gradient._nnz() > 0:
        return gradient._indices().t().contiguous(), gradient._values().contiguous()
    sparse_dim = 1 if gradient is None else gradient.sparse_dim()
    shape = (1, *parameter.shape[sparse_dim:])
    rows = torch.full((1, sparse_dim), NO_ROW, dtype=torch.int64, device=parameter.device)
    return rows, torch.zeros(shape, dtype=parameter.dtype, device=parameter.device)
