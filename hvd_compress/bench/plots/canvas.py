"""Canvas: a figure of matplotlib, and the file that it becomes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import ConfigurationError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 130


def make_figure(width: float, height: float) -> Figure:
    """Return an empty figure.

    Args:
        width: in inches.
        height: in inches.

    Raises:
        ConfigurationError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigurationError(
            "Plots need matplotlib, which is not installed: `pip install matplotlib`, or 'hvd_compress[bench]'."
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def finish(axes: Axes, title: str, across: str, up: str) -> None:
    """Give a plot its title and the names of its axes."""
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_xlabel(across, fontsize=8)
    axes.set_ylabel(up, fontsize=8)
    axes.tick_params(which="both", labelsize=7)
    axes.grid(visible=True, alpha=0.3)


def save(figure: Figure, path: Path) -> None:
    """Write a figure; equal figures make equal files.

    Raises:
        ConfigurationError: matplotlib writes no files of this kind, or not there.
    """
    import matplotlib

    kind = path.suffix.removeprefix(".").lower()
    known = figure.canvas.get_supported_filetypes()
    if kind not in known:
        raise ConfigurationError(f"{path.name!r}: give a name that ends in .svg, or one of {', '.join(sorted(known))}.")
    try:
        with matplotlib.rc_context({"svg.hashsalt": "hvd_compress", "svg.fonttype": "none"}):
            figure.savefig(path, dpi=_DPI, metadata={"Date": None} if kind == "svg" else None)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}.") from error
