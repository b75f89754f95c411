"""Micro: copies of the gradient against its size, a line a compressor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..micro.codec_subject import PREFIX
from ..micro.measure import Point
from .canvas import finish, make_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = 10


def micro_figure(points: Sequence[Point]) -> Figure:
    """Return the figure; codecs by themselves are dashed."""
    figure = make_figure(8.5, 5.0)
    axes = figure.subplots()
    for number, name in enumerate(dict.fromkeys(point.compressor for point in points)):
        line = sorted((point.nbytes, point.copies) for point in points if point.compressor == name)
        style = "--" if name.startswith(PREFIX) else ("-", "-.", ":")[number // _COLOURS % 3]
        axes.plot(
            [nbytes for nbytes, _ in line],
            [copies for _, copies in line],
            style,
            marker="o",
            markersize=3,
            color=f"C{number % _COLOURS}",
            label=name,
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.axhline(1.0, color="grey", linewidth=0.8)
    finish(axes, "Time of an exchange; dashed: of a codec, encode + decode", "bytes of the gradient", "copies of it")
    figure.legend(loc="outside right upper", fontsize=7)
    return figure
