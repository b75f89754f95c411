"""Plots of saved measurements, with matplotlib, which nothing else here needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..growth.point import Growth
from ..micro.measure import Point
from ..network.measured import Measured
from ..saved import rows_of
from .canvas import save
from .growth import growth_figure
from .micro import micro_figure
from .network import network_figure


def plot(report: dict[str, Any], path: Path) -> None:
    """Draw what `read_report` has read.

    Args:
        report: read.
        path: of the picture; what it ends in says of which kind it is.

    Raises:
        ConfigurationError: matplotlib is not installed, or writes no such file.
    """
    if report["suite"] == "micro":
        figure = micro_figure(rows_of(report["points"], Point))
    elif report["suite"] == "growth":
        figure = growth_figure(rows_of(report["measured"], Growth), report["predicted"])
    else:
        figure = network_figure(rows_of(report["measured"], Measured))
    save(figure, path)


__all__ = ["plot"]
