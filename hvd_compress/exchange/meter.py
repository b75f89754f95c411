"""What an exchange cost: bytes and collectives counted as they are asked for, seconds as they pass."""

from __future__ import annotations

import math
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

    def count(self, request: Collective, ops: ArrayOps, world_size: int) -> None:
        """Add the bytes of one request, as it was asked for, before fusion."""
        nbytes = math.prod(ops.shape(request.array)) * DTYPE_BYTES[ops.dtype(request.array)]
        self.sent_bytes += sent_bytes(type(request), nbytes, world_size)
