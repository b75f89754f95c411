"""The machine that something was measured on."""

from __future__ import annotations

import os
import platform
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
