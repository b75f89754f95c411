"""Workers: the same exchange with more and more workers on this machine, and a model of what more would take."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...contract import Spec
from ...errors import ConfigurationError
from ...exchange import make_plan
from ...exchange.plan import LATE
from ...horovod import launch
from ...registry import resolve
from .measure import Growth
from .model import Fit, fit, steps_and_bytes
from .settings import STOCK, GrowthSettings


def measure_workers(settings: GrowthSettings, workers: Sequence[int], seconds: float) -> list[Growth]:
    """Return what `measure` finds under horovodrun with each number of workers; they may outnumber the cores.

    Args:
        settings: of the model: its first number of parameters.
        workers: numbers of them, each at least 2.
        seconds: after which a launch is ended.

    Raises:
        ConfigurationError: a launch fails or takes too long.
    """
    found: list[Growth] = []
    for count in workers:
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder) / "found.json"
            program = [sys.executable, "-m", "hvd_compress", "bench-growth", "--json", str(result)]
            program += ["--compressors", ",".join(settings.compressors), "--workers", ""]
            program += ["--parameters", str(settings.parameters[0]), "--tensors", "", "-n", str(settings.repeats)]
            command = launch.command("horovodrun --gloo", count, program, f"{launch.own_folder()}/horovodrun")
            environment = launch.environment() | {"OMP_NUM_THREADS": "1"}
            try:
                done = subprocess.run(
                    command, env=environment, capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL
                )
            except subprocess.TimeoutExpired as error:
                raise ConfigurationError(
                    f"{count} workers did not end within {seconds:.0f} s; measure fewer."
                ) from error
            if done.returncode != 0:
                last = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
                raise ConfigurationError(f"{count} workers ended with exit status {done.returncode}:\n{last}")
            found += [Growth(**row) for row in json.loads(result.read_text())["measured"]]
    return found


def fits(settings: GrowthSettings, measured: Sequence[Growth]) -> dict[str, Fit]:
    """Return the model of every row that was measured with at least three numbers of workers."""
    made = {}
    for row in (STOCK, *settings.compressors):
        points = [
            (*cost(row, growth.parameters, settings.matrices, growth.workers), growth.seconds)
            for growth in measured
            if growth.row == row
        ]
        if len(points) >= 3:
            made[row] = fit(points)
    return made


def cost(row: str, parameters: int, matrices: int, workers: int) -> tuple[float, float]:
    """Return the steps around a ring and the bytes a worker sends, of an exchange in one bucket."""
    side = max(1, round((parameters / matrices) ** 0.5))
    specs = [(f"layer{i}.weight", Spec((side, side))) for i in range(matrices)]
    plan = make_plan(resolve("identity" if row == STOCK else row), specs, workers)
    steps, nbytes = 0, 0.0
    for unit in plan.units:
        own_steps, own_bytes = steps_and_bytes(unit.operator.traffic(unit.spec, workers, LATE), workers)
        # Units of a bucket travel together.
        steps, nbytes = max(steps, own_steps), nbytes + own_bytes
    return float(steps), nbytes


def predictions(settings: GrowthSettings, made: Mapping[str, Fit], workers: Sequence[int]) -> list[dict[str, Any]]:
    """Return what the models say of other numbers of workers."""
    return [
        {
            "row": row,
            "workers": count,
            "seconds": model.seconds(*cost(row, settings.parameters[0], settings.matrices, count)),
            "model": asdict(model),
        }
        for row, model in made.items()
        for count in workers
    ]
