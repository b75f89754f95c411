"""`python -m hvd_compress.bench.network.worker REQUEST RESULT`: one worker of a suite, in its namespace."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import final

import horovod.torch as stock
import torch

from ...description.describe import describe_plan
from ..turns import Budget, Turns
from .models import WORKLOADS
from .rivals import Trainee, trainee

# Of Linux's prctl: the signal that a process gets when the one that started it is gone.
_SET_DEATH_SIGNAL = 1
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
    if os.getppid() != asked["parent"]:
        sys.exit("The command that started this worker is gone.")
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
    turns = Turns(Budget(**asked["budget"]), tuple(trainees), {row: made.late for row, made in trainees.items()})
    # Ranks measure different times: what those of rank 0 say goes for all.
    while due := stock.broadcast_object(turns.next_round(), 0, name="turns"):
        for row, timed in due.items():
            turns.took(row, _step(trainees[row], counter, asked["settle"], rows[row] if timed else Row()))
    for row, made in trainees.items():
        if made.exchange is not None:
            rows[row].buckets = len(made.exchange.plan.buckets)
            rows[row].state_bytes = describe_plan(made.exchange.plan, stock.size()).state_bytes
    # Every rank waits for the last message before any of them leaves.
    stock.barrier()
    if stock.rank() == 0:
        found = {row: vars(own) for row, own in rows.items()}
        result.write_text(json.dumps({"rows": found, "parameters": _parameters(asked["workload"])}))
    stock.shutdown()


def _step(made: Trainee, counter: Path, settle: float, found: Row) -> float:
    """Do a step together with all other workers, add what it took to what was found, and return its time.

    Bytes are those from before the step until what follows: the barrier is not among them. Rank 0 has all averages
    by then, and has sent all it had to, but for what waits in the queue of its link for at most the time to settle.
    """
    stock.barrier()
    before = None if made.exchange is None else replace(made.exchange.meter)
    sent, began = int(counter.read_text()), time.perf_counter()
    made.step()
    seconds = time.perf_counter() - began
    time.sleep(settle)
    found.seconds.append(seconds)
    found.sent_bytes.append(int(counter.read_text()) - sent)
    if before is not None:
        meter = made.exchange.meter
        found.compress_seconds.append(meter.compress_seconds - before.compress_seconds)
        found.wait_seconds.append(meter.wait_seconds - before.wait_seconds)
        found.metered_bytes.append(meter.sent_bytes - before.sent_bytes)
        found.collectives.append(meter.collectives - before.collectives)
    return seconds


def _parameters(workload: str) -> int:
    return sum(p.numel() for p in WORKLOADS[workload](0).model.parameters())


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
