"""Measurements by several workers on this machine: the command starts itself under horovodrun."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...errors import ConfigurationError
from ...horovod import launch
from ..saved import rows_of
from .point import Growth
from .settings import GrowthSettings

_LAST_LINES = 20


def measure_launched(settings: GrowthSettings, workers: int, seconds: float) -> list[Growth]:
    """Return what `measure` finds with so many workers under horovodrun.

    Args:
        settings: of the models.
        workers: how many; they may outnumber the cores.
        seconds: after which the launch is ended.

    Raises:
        ConfigurationError: the launch fails or takes too long.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "found.json"
        program = [sys.executable, "-m", "hvd_compress", "bench-growth", "--json", str(result), "--workers", ""]
        budget = settings.budget
        program += ["--compressors", ",".join(settings.compressors), "-n", str(budget.repeats)]
        program += ["--parameters", _listed(settings.parameters), "--tensors", _listed(settings.tensors)]
        program += ["-w", str(budget.warmup), "--seconds", str(budget.seconds)]
        command = launch.command("horovodrun --gloo", workers, program, f"{launch.own_folder()}/horovodrun")
        environment = launch.environment() | {"OMP_NUM_THREADS": "1"}
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired as error:
            raise ConfigurationError(
                f"{workers} workers did not end within {seconds:.0f} s; measure fewer, or raise --limit."
            ) from error
        if done.returncode != 0:
            last = "\n".join((done.stdout + done.stderr).splitlines()[-_LAST_LINES:])
            raise ConfigurationError(f"{workers} workers ended with exit status {done.returncode}:\n{last}")
        return rows_of(json.loads(result.read_text())["measured"], Growth)


def measure_workers(settings: GrowthSettings, workers: int, seconds: float) -> list[Growth]:
    """Return what exchanges of the model with the first number of parameters take with so many workers.

    Args:
        settings: of the models.
        workers: how many.
        seconds: after which a launch is ended.

    Raises:
        ConfigurationError: a launch fails or takes too long.
    """
    smallest = replace(settings, parameters=settings.parameters[:1], tensors=())
    return [replace(row, grown="workers") for row in measure_launched(smallest, workers, seconds)]


def _listed(numbers: Sequence[int]) -> str:
    return ",".join(str(number) for number in numbers)
