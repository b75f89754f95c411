"""similarities: the comparison of all of a worker's residuals, for a driver to carry."""

from __future__ import annotations

from typing import cast

from ..contract import Exchange
from ..contract.checks import check_at_least
from ..exchange import BucketExchange, Meter, Worker
from ..ops import ops_of
from .similarity import Similarity, similarity


def similarities(worker: Worker, ratio: int) -> BucketExchange:
    """Return what compares this rank's residuals with those of the others; all ranks start it between the same steps.

    Its bytes are not those of training, and are not counted as such.

    Args:
        worker: its residuals are read, not changed.
        ratio: of each residual the d/ratio largest elements are compared, >= 1.

    Raises:
        ConfigurationError: ratio is out of range.
    """
    check_at_least(worker, "ratio", ratio, 1)
    exchanges = {}
    for name, memory in worker.memories().items():
        ops = ops_of(memory)
        exchanges[name] = (cast(Exchange, similarity(memory, worker.world_size, ratio, ops)), ops)
    return BucketExchange(exchanges, worker.world_size, Meter())


def similarities_of(exchange: BucketExchange) -> dict[str, Similarity]:
    """Return by parameter name what a comparison ended with, once it is done."""
    return cast(dict[str, Similarity], dict(exchange.outcomes))
