"""Growth: seconds against parameters, tensors and workers; what a model says is dashed, and open."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..growth.point import STOCK, Growth
from .canvas import finish, make_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANELS: tuple[tuple[str, Callable[[Growth], int]], ...] = (
    ("parameters", lambda row: row.parameters),
    ("tensors", lambda row: row.tensors),
    ("workers", lambda row: row.workers),
)


def growth_figure(rows: Sequence[Growth], predicted: Sequence[Mapping[str, Any]]) -> Figure:
    """Return the figure, with a panel for everything that grew."""
    panels = [(name, at) for name, at in _PANELS if any(row.grown == name for row in rows)]
    figure = make_figure(1.5 + 3.6 * len(panels), 4.0)
    names = list(dict.fromkeys(row.row for row in rows))
    for axes, (grown, at) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for number, name in enumerate(names):
            own = [row for row in rows if row.grown == grown and row.row == name]
            # Horovod's own is in every group.
            line = sorted((at(row), row.seconds) for row in own if name != STOCK or row.group == 0)
            _line(axes, line, f"C{number}", name)
            if grown == "workers" and line:
                said = sorted((point["workers"], point["seconds"]) for point in predicted if point["row"] == name)
                _line(axes, [line[-1], *said], f"C{number}", None)
        axes.set_xscale("log")
        axes.set_yscale("log")
        modelled = "; dashed: a model" if grown == "workers" and predicted else ""
        finish(axes, f"Growing: {grown}{modelled}", grown, "seconds an exchange")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=7)
    return figure


def _line(axes: Axes, line: Sequence[tuple[float, float]], colour: str, label: str | None) -> None:
    """Draw measured points, which have a label, or those of a model, which hang on the last measured one."""
    across, up = [x for x, _ in line], [y for _, y in line]
    if label is not None:
        axes.plot(across, up, "-o", markersize=3, color=colour, label=label)
    elif len(line) > 1:
        axes.plot(across, up, "--", color=colour)
        axes.plot(across[1:], up[1:], "o", markersize=4, color=colour, markerfacecolor="none")
