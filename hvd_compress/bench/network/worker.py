"""`python -m hvd_compress.bench.network.worker REQUEST RESULT`: one worker of a suite, in its namespace."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import horovod.torch as stock
import torch

from .models import WORKLOADS
from .rivals import Trainee, trainee


@final
@dataclass
class Row:
    """What was measured of one row.

    Args:
        seconds: of each timed step.
        sent_bytes: of each timed step, by the link's counter.
        compress_seconds: of ours, in compressors, in all timed steps; None for others.
        wait_seconds: of ours, in collectives; None for others.
        metered_bytes: of ours, as the exchange counts them; None for others.
    """

    seconds: list[float] = field(default_factory=list)
    sent_bytes: list[int] = field(default_factory=list)
    compress_seconds: float | None = None
    wait_seconds: float | None = None
    metered_bytes: int | None = None


def main(request: Path, result: Path) -> None:
    """Measure all rows in turn; rank 0 writes."""
    asked = json.loads(request.read_text())
    torch.set_num_threads(1)
    stock.init()
    if any(row.startswith("ddp") for row in asked["rows"]):
        torch.distributed.init_process_group("gloo")
    trainees: dict[str, Trainee] = {}
    for row in asked["rows"]:
        torch.manual_seed(asked["seed"])
        trainees[row] = trainee(row, WORKLOADS[asked["workload"]](stock.rank()))
    measured = {row: Row() for row in trainees}
    counter = Path(f"/sys/class/net/{asked['interfaces'][stock.rank()]}/statistics/tx_bytes")
    for repeat in range(asked["warmup"] + asked["repeats"]):
        if repeat == asked["warmup"]:
            before = {row: _meter(made) for row, made in trainees.items()}
        for row, made in trainees.items():
            stock.barrier()
            sent, began = int(counter.read_text()), time.perf_counter()
            made.step()
            seconds = time.perf_counter() - began
            if repeat >= asked["warmup"]:
                measured[row].seconds.append(seconds)
                measured[row].sent_bytes.append(int(counter.read_text()) - sent)
    for row, made in trainees.items():
        now = _meter(made)
        if now is not None:
            compress, wait, sent_bytes = (after - first for after, first in zip(now, before[row] or (), strict=True))
            found = measured[row]
            found.compress_seconds, found.wait_seconds, found.metered_bytes = compress, wait, int(sent_bytes)
    everyone = stock.allgather_object({row: vars(found) for row, found in measured.items()})
    if stock.rank() == 0:
        result.write_text(json.dumps({"rows": everyone, "parameters": _parameters(asked["workload"])}))
    stock.shutdown()


def _meter(made: Trainee) -> tuple[float, float, float] | None:
    if made.exchange is None:
        return None
    meter: Any = made.exchange.meter
    return meter.compress_seconds, meter.wait_seconds, float(meter.sent_bytes)


def _parameters(workload: str) -> int:
    return sum(p.numel() for p in WORKLOADS[workload](0).model.parameters())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
