"""The machine that something is measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any


def machine(load: float) -> dict[str, Any]:
    """Return what is needed to judge times.

    Args:
        load: average of the machine before the run.
    """
    return {
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "load_before": load,
        "python": platform.python_version(),
    }


def available_bytes() -> int:
    """Return the memory that can be had without swapping; all there is, where the system does not say."""
    memory = Path("/proc/meminfo")
    if memory.exists():
        said = dict(line.split(":", 1) for line in memory.read_text().splitlines())
        return 1024 * int(said["MemAvailable"].split()[0])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
