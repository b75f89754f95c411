"""Growth: one model and one way of exchanging its gradients, measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

# Plain averages by Horovod's own optimizer, which ours are compared with.
STOCK = "horovod"


@final
@dataclass(frozen=True)
class Growth:
    """One model and one way of exchanging its gradients; seconds are of an exchange, the median.

    Args:
        grown: what the model, or the number of workers, is one of several of.
        row: a compressor, or `STOCK`.
        parameters: of the model.
        tensors: of the model.
        workers: that exchanged.
        group: rows of one took turns; there are several where memory is short for all rows at once.
        exchanges: that were timed.
        seconds: from gradients that are there to their means.
        fastest: the shortest.
        slowest: the longest.
        collectives: of ours, an exchange; None for Horovod's own.
        buckets: of ours; None for Horovod's own.
    """

    grown: Literal["parameters", "tensors", "workers"]
    row: str
    parameters: int
    tensors: int
    workers: int
    group: int
    exchanges: int
    seconds: float
    fastest: float
    slowest: float
    collectives: float | None
    buckets: int | None
