"""Network: time of a step for every row, as bars in a panel for every model and rate; the floor is a dashed line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..network.measured import FLOOR, Measured
from .canvas import finish, make_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def network_figure(rows: Sequence[Measured]) -> Figure:
    """Return the figure: rates from top to bottom, models from left to right, numbers of workers side by side."""
    rates = list(dict.fromkeys(row.rate for row in rows))
    workloads = list(dict.fromkeys(row.workload for row in rows))
    workers = sorted({row.workers for row in rows})
    names = [name for name in dict.fromkeys(row.row for row in rows) if name != FLOOR]
    height = 0.8 + len(names) * (0.08 + 0.11 * len(workers))
    figure = make_figure(2.0 + 4.2 * len(workloads), height * len(rates) + 0.4)
    panels = figure.subplots(len(rates), len(workloads), squeeze=False)
    for across, rate in zip(panels, rates, strict=True):
        for axes, workload in zip(across, workloads, strict=True):
            own = [row for row in rows if (row.rate, row.workload) == (rate, workload)]
            _bars(axes, own, names, workers)
            finish(axes, f"{workload}, {rate}", "ms a step; dashed: no communication", "")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(workers), fontsize=7)
    return figure


def _bars(axes: Axes, rows: Sequence[Measured], names: Sequence[str], workers: Sequence[int]) -> None:
    thickness = 0.8 / len(workers)
    for number, count in enumerate(workers):
        found = {row.row: row for row in rows if row.workers == count}
        shown = [(place, found[name]) for place, name in enumerate(names) if name in found]
        axes.barh(
            [place + (number - (len(workers) - 1) / 2) * thickness for place, _ in shown],
            [1e3 * row.seconds for _, row in shown],
            thickness,
            xerr=(
                [1e3 * max(0.0, row.seconds - row.lower) for _, row in shown],
                [1e3 * max(0.0, row.upper - row.seconds) for _, row in shown],
            ),
            error_kw={"linewidth": 0.6},
            color=f"C{number}",
            label=f"{count} workers",
        )
        if FLOOR in found:
            axes.axvline(1e3 * found[FLOOR].seconds, color=f"C{number}", linestyle="--", linewidth=0.9)
    axes.set_yticks(range(len(names)), list(names))
    axes.invert_yaxis()
