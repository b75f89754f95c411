"""What `describe` returns: costs by unit and in total, and the table that shows them."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..contract import Operator, Spec

_WHY = {"small": "not worth it", "larger": "would grow", "empty": "no element"}


@final
@dataclass(frozen=True)
class UnitCost:
    """What one unit costs a worker at each step.

    Args:
        name: of the unit: its parameter, or "first..last" of several.
        parameters: names of its parameters.
        spec: of the gradient that the operator sees.
        operator: how it travels.
        passed_over: why the compressor was not used: "small", "larger" or "empty"; "" where it is used.
        dense_bytes: that a worker would send for a plain average.
        wire_bytes: that a worker sends.
        state_bytes: kept between steps.
        rounds: of collectives that wait for one another.
    """

    name: str
    parameters: tuple[str, ...]
    spec: Spec
    operator: Operator
    passed_over: str
    dense_bytes: float
    wire_bytes: float
    state_bytes: int
    rounds: int

    @property
    def ratio(self) -> float:
        """How many times fewer bytes than a plain average; inf if nothing is sent."""
        return _ratio(self.dense_bytes, self.wire_bytes)


@final
@dataclass(frozen=True)
class Description:
    """What a compressor does to a model; `str()` is a table.

    Args:
        compressor: as it prints.
        world_size: number of workers.
        units: in the order in which they are exchanged.
        collectives: that a worker starts at a step, after fusion.
        rounds: of collectives that wait for one another, in the longest bucket.
    """

    compressor: str
    world_size: int
    units: tuple[UnitCost, ...]
    collectives: float
    rounds: int

    @property
    def dense_bytes(self) -> float:
        """Bytes that a worker would send at a step for plain averages."""
        return sum(unit.dense_bytes for unit in self.units)

    @property
    def wire_bytes(self) -> float:
        """Bytes that a worker sends at a step."""
        return sum(unit.wire_bytes for unit in self.units)

    @property
    def state_bytes(self) -> int:
        """Bytes that a worker keeps between steps."""
        return sum(unit.state_bytes for unit in self.units)

    @property
    def ratio(self) -> float:
        """How many times fewer bytes than plain averages; inf if nothing is sent."""
        return _ratio(self.dense_bytes, self.wire_bytes)

    def __str__(self) -> str:
        out = io.StringIO()
        Console(file=out, width=200, color_system=None).print(self.__rich__())
        return "\n".join(line.rstrip() for line in out.getvalue().splitlines())

    def __rich__(self) -> Table:
        table = Table(title=f"{self.compressor}, {self.world_size} workers", title_justify="left", box=None)
        for column in ("unit", "shape", "travels by", "dense because", "sent", "ratio", "state", "rounds"):
            right = column in ("sent", "ratio", "state", "rounds")
            table.add_column(column, justify="right" if right else "left", overflow="fold")
        for unit in self.units:
            table.add_row(
                Text(unit.name),
                "x".join(str(n) for n in unit.spec.shape) or "scalar",
                Text(repr(unit.operator)),
                _WHY.get(unit.passed_over, ""),
                _bytes(unit.wire_bytes),
                _times(unit.ratio),
                _bytes(unit.state_bytes),
                str(unit.rounds),
            )
        total = (_bytes(self.wire_bytes), _times(self.ratio), _bytes(self.state_bytes), str(self.rounds))
        table.add_row("a step", f"collectives: {self.collectives:g}", "", "", *total, style="bold")
        return table


def _ratio(dense: float, sent: float) -> float:
    if dense == sent:
        return 1.0
    return dense / sent if sent else math.inf


def _times(ratio: float) -> str:
    return f"{ratio:.1f}x" if ratio < 100 else f"{ratio:.0f}x"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
