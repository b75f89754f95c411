"""Suite: models trained on shaped links in every way that a user could choose, rows in turn within one run."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from ...errors import ConfigurationError
from ..turns import Budget
from .launching import run_workers
from .measured import FLOOR, Measured, measured
from .namespaces import Network
from .sent import CYCLE_MILLISECONDS, SETTLE_SECONDS, Sent, sent

_RATE = re.compile(r"[0-9]+(\.[0-9]+)?([kmgt]i?)?(bit|bps)", re.IGNORECASE)
WORKLOADS = ("lstm", "transformer", "resnet")
RATES = ("100mbit", "1gbit", "10gbit", "unshaped")
# PowerSGD's hook of DDP begins in the third step.
_LEAST_WARMUP = 3
# Steps whose bytes are counted: even, for what does one thing at every other step.
_COUNTED = 4
PEERS = ("horovod", "horovod:fp16", "ddp", "ddp:fp16", "ddp:bf16", "ddp:powersgd4", "one-reduction:4")


@final
@dataclass(frozen=True)
class NetworkSettings:
    """What is trained, where and how.

    Args:
        workloads: of `WORKLOADS`.
        rates: of links, each way, as `tc` reads them; "unshaped" for as fast as the kernel is.
        workers: numbers of them, each at least 2.
        rows: see `rivals.trainee`; the floor is always among them.
        budget: of each row; its steps before those that are timed are at least 3.
        seed: of the weights.
        limit: seconds for all rows on one kind of link, above 0; None: what the slowest of use take.

    Raises:
        ConfigurationError: a setting is out of range.
    """

    workloads: tuple[str, ...]
    rates: tuple[str, ...]
    workers: tuple[int, ...]
    rows: tuple[str, ...]
    budget: Budget
    seed: int = 0
    limit: float | None = None

    def __post_init__(self) -> None:
        other = [name for name in self.workloads if name not in WORKLOADS]
        if other or not self.workloads:
            raise ConfigurationError(f"workloads={self.workloads!r}: give some of {', '.join(WORKLOADS)}.")
        if not self.rates or not self.rows:
            raise ConfigurationError("No rates or no rows are given; give at least one of each.")
        for rate in self.rates:
            if rate != "unshaped" and not _RATE.fullmatch(rate):
                raise ConfigurationError(f"rate {rate!r}: give 'unshaped', or a rate as `tc` reads it, such as 1gbit.")
        if not self.workers or min(self.workers) < 2:
            raise ConfigurationError(f"workers={self.workers!r}: give numbers of at least 2.")
        if self.budget.warmup < _LEAST_WARMUP:
            raise ConfigurationError(f"warmup={self.budget.warmup}: give at least {_LEAST_WARMUP}.")
        if self.limit is not None and not self.limit > 0:
            raise ConfigurationError(f"limit={self.limit!r}: give seconds above 0.")

    @property
    def all_rows(self) -> tuple[str, ...]:
        """The floor, and what is compared with it."""
        return (FLOOR, *(row for row in self.rows if row != FLOOR))


def run_suite(
    settings: NetworkSettings, progress: Callable[[str], object] = lambda text: None
) -> Iterator[list[Measured]]:
    """Yield the rows of every workload, rate and number of workers; whatever is made for it is gone after each.

    Args:
        settings: what to measure.
        progress: told what is about to be measured.

    Raises:
        ConfigurationError: namespaces cannot be made here, or a worker fails.
    """
    for workload in settings.workloads:
        for rate in settings.rates:
            for workers in settings.workers:
                place = (workload, rate, workers)
                progress(f"{workload}, {rate}, {workers} workers")
                found = _run(settings, place, settings.budget, 0.0, {})
                yield measured(place, found["rows"], 4 * found["parameters"])


def count_bytes(
    settings: NetworkSettings, progress: Callable[[str], object] = lambda text: None
) -> Iterator[list[Sent]]:
    """Yield the bytes of all rows for every workload and number of workers, on links of the last rate; see `Sent`.

    Args:
        settings: what to measure.
        progress: told what is about to be measured.

    Raises:
        ConfigurationError: see `run_suite`.
    """
    # No row has fewer: an odd number would not be the mean of what alternates.
    budget = Budget(_LEAST_WARMUP, _COUNTED, math.inf)
    slow = {"HOROVOD_CYCLE_TIME": str(CYCLE_MILLISECONDS)}
    for workload in settings.workloads:
        for workers in settings.workers:
            place = (workload, settings.rates[-1], workers)
            progress(f"bytes of {workload}, {workers} workers")
            yield sent(place, _run(settings, place, budget, SETTLE_SECONDS, slow)["rows"])


def _run(
    settings: NetworkSettings, place: tuple[str, str, int], budget: Budget, settle: float, variables: dict[str, str]
) -> dict[str, Any]:
    workload, rate, workers = place
    # A step takes 10 s at most, of those that are of use: dense, of 53 MB, among four workers at 100 Mbit/s.
    limit = settings.limit or 180.0 + len(settings.all_rows) * (2 * settings.budget.seconds + 80.0)
    with Network(workers, None if rate == "unshaped" else rate) as network, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        request = {
            "workload": workload,
            "rows": settings.all_rows,
            "budget": asdict(budget),
            "settle": settle,
            "seed": settings.seed,
            "parent": os.getpid(),
            "interfaces": [network.interface(worker) for worker in range(workers)],
        }
        (folder / "request.json").write_text(json.dumps(request))
        program = [
            sys.executable,
            "-X",
            "faulthandler",
            "-m",
            f"{__package__}.worker",
            name + "/request.json",
            name + "/result.json",
        ]
        run_workers(network, program, folder, limit, variables)
        found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found
