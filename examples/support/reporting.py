"""What the demo ends with: a table for the terminal, one for Markdown, and a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from .measure import PARTS

COLUMNS = ("method", "test accuracy", "bytes sent a step", "dense / this")
NARROW = ("method", "accuracy", "bytes\na step", "dense\n/ this")
NARROW_PARTS = {
    "step": "step\nms",
    "compute": "compute\nms",
    "compress": "compress\nms",
    "communicate": "communi-\ncate ms",
}
BEGIN, END = "<!-- demo table: begin -->", "<!-- demo table: end -->"

Result = dict[str, Any]


def parts(report: Result) -> list[str]:
    """Return the parts of a step whose times are known."""
    return [part for part in PARTS if part in report["results"][0]["milliseconds"]]


def row(result: Result) -> list[str]:
    """Return the cells of one method."""
    sent, dense = result["bytes_per_step"], result["dense_bytes_per_step"]
    times = (f"{milliseconds:.1f}" for milliseconds in result["milliseconds"].values())
    return [
        result["method"],
        f"{result['accuracy']:.2%}",
        f"{sent:,}",
        f"{dense / sent:.1f}" if sent else "-",
        *times,
    ]


def caption(report: Result) -> str:
    """Return what the numbers are, and where they come from."""
    machine, run = report["machine"], report["run"]
    split = len(parts(report)) > 1
    counted = "as the exchange's meter counts them" if split else "as the plan of the exchange has them"
    communicate = "; communicate is starting collectives and waiting for them" if split else ""
    libraries = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items())
    return (
        f"{run['workers']} workers on one machine of {machine['cores']} cores, one thread each, horovodrun "
        f"--{run['transport']}, {run['steps']} steps of {run['batch_size']} images a worker, seed {run['seed']}; "
        f"{run['optimizer']}; load average before the run {machine['load_before']:.1f}. Accuracy on all test images. "
        f"Bytes sent by one worker, {counted}: 2 (W-1)/W n for an allreduce of n bytes. Times are of rank 0, means "
        f"over the middle half of the steps by duration{communicate}. {libraries}, Python {machine['python']}."
    )


def table(report: Result) -> Table:
    """Return the table for the terminal."""
    made = Table(title="Fashion-MNIST, a CNN of 207,000 parameters", caption=caption(report), caption_justify="left")
    made.box, made.show_edge, made.pad_edge, made.collapse_padding = box.SIMPLE_HEAD, False, False, True
    for i, column in enumerate([*NARROW, *(NARROW_PARTS[part] for part in parts(report))]):
        made.add_column(column, justify="right" if i else "left", no_wrap=True)
    for result in report["results"]:
        made.add_row(*row(result))
    return made


def markdown(report: Result) -> str:
    """Return the same table as Markdown."""
    columns = [*COLUMNS, *(f"{part} ms" for part in parts(report))]
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *(row(result) for result in report["results"])]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{caption(report)}\n"


def rewrite(document: Path, report: Result) -> None:
    """Replace what stands between the two marker comments in a Markdown file by the table."""
    text = document.read_text()
    if BEGIN not in text or END not in text:
        raise SystemExit(f"{document} has no lines {BEGIN} and {END}; add them where the table belongs.")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    document.write_text(f"{before}{BEGIN}\n{markdown(report)}{END}{after}")


def plot(results: Sequence[Result], path: Path) -> None:
    """Draw test accuracy against the bytes sent so far."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.3), layout="constrained")
    for result in results:
        megabytes = [point["bytes"] / 1e6 for point in result["curve"]]
        accuracies = [100 * point["accuracy"] for point in result["curve"]]
        axes.plot(megabytes, accuracies, marker="o", markersize=3, label=result["method"])
    if all(result["bytes_per_step"] for result in results):
        axes.set_xscale("log")
    axes.set_xlabel("megabytes sent by one worker")
    axes.set_ylabel("test accuracy, %")
    axes.set_title("Fashion-MNIST: accuracy against bytes sent")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
