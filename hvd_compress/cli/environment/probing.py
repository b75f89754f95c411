"""The parent's side of `probes`: starts one and understands what it said before it ended or died."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

from . import child, probes


@final
@dataclass(frozen=True)
class Probed:
    """What a probe found.

    Args:
        stages: facts by stage, for every stage that ended.
        failed: the stage that did not, or "".
        error: how it failed, or "".
    """

    stages: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    failed: str = ""
    error: str = ""

    def error_in(self, stage: str) -> str:
        """Return how that stage failed, "" if it did not."""
        return self.error if stage == self.failed else ""


def probe(name: str, environment: Mapping[str, str], limit: float) -> Probed:
    """Run one of `probes.PROBES` in a process of its own.

    Args:
        name: of the probe.
        environment: for the process.
        limit: seconds.
    """
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}
    ended = child.run([sys.executable, "-m", probes.__name__, name], {**environment, **quiet}, limit)
    return understand(ended)


def understand(ended: child.Ended) -> Probed:
    """Read the lines of a probe that has ended."""
    stages: dict[str, Mapping[str, Any]] = {}
    current, error = "", ""
    for line in ended.output.splitlines():
        if not line.startswith(probes.MARK):
            continue
        said = json.loads(line.removeprefix(probes.MARK))
        current = said.get("begin", current)
        error = said.get("error", error)
        if "end" in said:
            stages[said["end"]] = said["found"]
    if not current:  # a crash after the last stage takes nothing away; one before the first has no stage
        return Probed(stages, "" if stages else "probe", "" if stages else ended.failure)
    return Probed(stages, current, error or ended.failure or "ended without a word")
