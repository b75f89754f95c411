"""Suite: models trained on shaped links in every way that a user could choose, rows in turn within one run."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from ...errors import ConfigurationError
from .launching import run_workers
from .measured import FLOOR, Measured, measured
from .namespaces import Network

WORKLOADS = ("lstm", "transformer", "resnet")
RATES = ("100mbit", "1gbit", "10gbit", "unshaped")
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
        warmup: steps of each row before those that are timed.
        repeats: timed steps of each row.
        seed: of the weights.

    Raises:
        ConfigurationError: a setting is out of range.
    """

    workloads: tuple[str, ...]
    rates: tuple[str, ...]
    workers: tuple[int, ...]
    rows: tuple[str, ...]
    warmup: int = 4
    repeats: int = 12
    seed: int = 0

    def __post_init__(self) -> None:
        other = [name for name in self.workloads if name not in WORKLOADS]
        if other or not self.workloads:
            raise ConfigurationError(f"workloads={self.workloads!r}: give some of {', '.join(WORKLOADS)}.")
        if not self.rates or not self.rows:
            raise ConfigurationError("No rates or no rows are given; give at least one of each.")
        if not self.workers or min(self.workers) < 2:
            raise ConfigurationError(f"workers={self.workers!r}: give numbers of at least 2.")
        if self.warmup < 3 or self.repeats < 1:
            # Plans and graphs are made in the first two steps, and the hook of DDP begins in the third.
            raise ConfigurationError(f"warmup={self.warmup}, repeats={self.repeats}: give at least 3 and 1.")


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
    rows = (FLOOR, *(row for row in settings.rows if row != FLOOR))
    for workload in settings.workloads:
        for rate in settings.rates:
            for workers in settings.workers:
                progress(f"{workload}, {rate}, {workers} workers")
                found = _run(settings, workload, rate, workers, rows)
                yield measured((workload, rate, workers), found["rows"][0], 4 * found["parameters"])


def _run(settings: NetworkSettings, workload: str, rate: str, workers: int, rows: tuple[str, ...]) -> dict[str, Any]:
    steps = settings.warmup + settings.repeats
    # The slowest that is of use: 100 Mbit/s for 53 MB takes 4.3 s a step.
    limit = 120.0 + 10.0 * steps * len(rows)
    with Network(workers, None if rate == "unshaped" else rate) as network, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        request = {
            "workload": workload,
            "rows": rows,
            "warmup": settings.warmup,
            "repeats": settings.repeats,
            "seed": settings.seed,
            "interfaces": [network.interface(worker) for worker in range(workers)],
        }
        (folder / "request.json").write_text(json.dumps(request))
        program = [sys.executable, "-m", f"{__package__}.worker", name + "/request.json", name + "/result.json"]
        run_workers(network, program, folder, limit)
        found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found
