"""A progress bar for the terminal, or lines that a launcher passes on where there are several workers."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

REPORTS = 100


def make_bar(console: Console | None = None) -> Bar:
    """Return a bar with a description, the steps done, the time left and the loss."""
    return Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        console=console,
    )


class Progress:
    """Shows on rank 0 how far training is, about a hundred times: a bar, or lines "step 120/1200 loss 0.512".

    Launchers put a prefix before everything that a worker prints, which a bar would not survive; `examples/demo.py`
    draws one from the lines.
    """

    def __init__(self, total: int, rank: int, world_size: int) -> None:
        self._total = total
        self._show = rank == 0
        self._bar = make_bar() if world_size == 1 and sys.stdout.isatty() else None

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("training", total=self._total, loss=float("nan"))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def due(self, step: int) -> bool:
        """Whether a report is due after so many steps: reading the loss makes a GPU wait."""
        return self._show and (step % max(1, self._total // REPORTS) == 0 or step == self._total)

    def report(self, step: int, loss: float) -> None:
        """Show that `step` steps are done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step, loss=loss)
        else:
            print(f"step {step}/{self._total} loss {loss:.4f}", flush=True)
