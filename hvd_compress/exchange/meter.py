"""What an exchange cost: bytes and collectives counted as they are asked for, seconds as they pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from ..contract import DTYPE_BYTES, Collective, sent_bytes
from ..ops import ArrayOps


@final
@dataclass
class Meter:
    """Running totals of one worker.

    Args:
        steps: exchanges finished.
        sent_bytes: bytes that this worker sent, by the cost of each collective (`contract.traffic.sent_bytes`).
        collectives: collectives started, after fusion.
        compress_seconds: time spent in compressors, host clock.
        wait_seconds: time spent waiting for collectives, host clock.
    """

    steps: int = 0
    sent_bytes: int = 0
    collectives: int = 0
    compress_seconds: float = 0.0
    wait_seconds: float = 0.0

    def count(self, request: Collective, ops: ArrayOps, world_size: int, sizes: Sequence[int] | None = None) -> None:
        """Add the bytes of one request, as it was asked for, before fusion.

        Args:
            request: the request.
            ops: array operations of its array.
            world_size: number of workers.
            sizes: elements of each of the requests that it stands for, if it stands for several.
        """
        width = DTYPE_BYTES[ops.dtype(request.array)]
        counts = (math.prod(ops.shape(request.array)),) if sizes is None else sizes
        self.sent_bytes += sum(sent_bytes(type(request), count * width, world_size) for count in counts)
