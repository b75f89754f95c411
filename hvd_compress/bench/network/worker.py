"""`python -m hvd_compress.bench.network.worker REQUEST RESULT`: one worker of a suite, in its namespace."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import final

import horovod.torch as stock
import torch

from ...description.describe import describe_plan
from .models import WORKLOADS
from .rivals import Trainee, trainee

# Rows that use torch's own collectives.
_BY_TORCH = ("ddp", "one-reduction")


@final
@dataclass
class Row:
    """What was measured of one row.

    Args:
        seconds: of each timed step.
        sent_bytes: of each timed step, by the link's counter.
        compress_seconds: of each, in compressors; none for others than ours, as the next three.
        wait_seconds: of each, in collectives.
        metered_bytes: of each, as the exchange counts them.
        collectives: of each.
        buckets: of ours; None for others.
        state_bytes: of ours, as declared; None for others.
    """

    seconds: list[float] = field(default_factory=list)
    sent_bytes: list[int] = field(default_factory=list)
    compress_seconds: list[float] = field(default_factory=list)
    wait_seconds: list[float] = field(default_factory=list)
    metered_bytes: list[int] = field(default_factory=list)
    collectives: list[int] = field(default_factory=list)
    buckets: int | None = None
    state_bytes: int | None = None


def main(request: Path, result: Path) -> None:
    """Measure all rows in turn; rank 0 writes."""
    asked = json.loads(request.read_text())
    torch.set_num_threads(1)
    stock.init()
    if any(row.startswith(_BY_TORCH) for row in asked["rows"]):
        torch.distributed.init_process_group("gloo")
    trainees: dict[str, Trainee] = {}
    for row in asked["rows"]:
        torch.manual_seed(asked["seed"])
        trainees[row] = trainee(row, WORKLOADS[asked["workload"]](stock.rank()))
    rows = {row: Row() for row in trainees}
    counter = Path(f"/sys/class/net/{asked['interfaces'][stock.rank()]}/statistics/tx_bytes")
    for repeat in range(asked["warmup"] + asked["repeats"]):
        for row, made in trainees.items():
            _step(made, counter, rows[row] if repeat >= asked["warmup"] else Row())
    for row, made in trainees.items():
        if made.exchange is not None:
            rows[row].buckets = len(made.exchange.plan.buckets)
            rows[row].state_bytes = describe_plan(made.exchange.plan, stock.size()).state_bytes
    everyone = stock.allgather_object({row: vars(found) for row, found in rows.items()})
    if stock.rank() == 0:
        result.write_text(json.dumps({"rows": everyone, "parameters": _parameters(asked["workload"])}))
    stock.shutdown()


def _step(made: Trainee, counter: Path, found: Row) -> None:
    """Do a step together with all other workers, and add what it took."""
    stock.barrier()
    before = None if made.exchange is None else replace(made.exchange.meter)
    sent, began = int(counter.read_text()), time.perf_counter()
    made.step()
    found.seconds.append(time.perf_counter() - began)
    # What still waits in the link's queue is this step's.
    stock.barrier()
    found.sent_bytes.append(int(counter.read_text()) - sent)
    if before is not None:
        meter = made.exchange.meter
        found.compress_seconds.append(meter.compress_seconds - before.compress_seconds)
        found.wait_seconds.append(meter.wait_seconds - before.wait_seconds)
        found.metered_bytes.append(meter.sent_bytes - before.sent_bytes)
        found.collectives.append(meter.collectives - before.collectives)


def _parameters(workload: str) -> int:
    return sum(p.numel() for p in WORKLOADS[workload](0).model.parameters())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
