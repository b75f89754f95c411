"""What one worker sends a step, against the number of workers, counted in the simulator: no MPI, no Horovod.

- `python examples/traffic.py`: every compressor that has a name
- `python examples/traffic.py --method dense,powersgd,scalecom --workers 2,4,8`: some of them
- `python examples/traffic.py --output docs`: refreshes the documentation
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from support.methods import compression

from hvd_compress import Simulator, names
from hvd_compress.exchange.units import LATE

WORKERS = "2,4,8,16,32,64"
# A small model of the usual kinds: convolutions, a layer of features, their biases. 52,138 parameters.
MODEL = {
    "conv1.weight": (16, 3, 3, 3),
    "conv1.bias": (16,),
    "conv2.weight": (32, 16, 3, 3),
    "conv2.bias": (32,),
    "hidden.weight": (128, 360),
    "hidden.bias": (128,),
    "output.weight": (10, 128),
    "output.bias": (10,),
}


def sent(method: str, workers: int) -> int:
    """Return the bytes that one worker sends for one step, warm-ups and schedules being over."""
    parameters = {name: np.ones(shape, np.float32) for name, shape in MODEL.items()}
    simulator = Simulator(compression(method), workers, learning_rate=0.1, parameters=parameters)
    generator = np.random.default_rng(0)
    gradients = [
        {name: generator.standard_normal(shape, dtype=np.float32) for name, shape in MODEL.items()}
        for _ in range(workers)
    ]
    # Some methods begin dense: what is counted is a late step.
    simulator.set_up(gradients)
    for worker in simulator.workers:
        worker.step = LATE
    simulator.step(gradients)
    return simulator.sent_bytes


def measure(methods: list[str], workers: list[int]) -> list[dict[str, Any]]:
    results = []
    for method in track(methods, description="counting"):
        with warnings.catch_warnings():
            # What grows beyond a plain average travels dense from there on; the table shows it.
            warnings.simplefilter("ignore")
            results.append({"method": method, "bytes": {str(n): sent(method, n) for n in workers}})
    return results


def cells(result: dict[str, Any]) -> list[str]:
    counts = list(result["bytes"].values())
    return [result["method"], *(f"{count:,}" for count in counts), f"{counts[-1] / counts[0]:.1f}"]


def markdown(results: list[dict[str, Any]], workers: list[int]) -> str:
    """Return the table, with what it says."""
    header = ["method", *(f"W = {n}" for n in workers), f"W = {workers[-1]} / W = {workers[0]}"]
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *(cells(result) for result in results)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return (
        "# Bytes that one worker sends a step\n\n"
        f"{table}\n\n"
        f"Counted in the simulator by `python examples/traffic.py --output docs` for a model of "
        f"{sum(int(np.prod(shape)) for shape in MODEL.values()):,} float32 parameters, after warm-ups. An allreduce of "
        "n bytes counts 2 (W-1)/W n, an allgather (W-1) n, an alltoall (W-1)/W n, so that a constant cost grows from "
        "W = 2 to many workers by a factor of 2 at most. A method whose gathers would send more than a plain average "
        "travels dense from there on. Units this small carry relatively many scales and paddings.\n"
    )


def plot(results: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5.5), layout="constrained")
    for i, result in enumerate(results):
        style = ("-", "--", ":", "-.")[i // 10 % 4]
        axes.plot([int(n) for n in result["bytes"]], list(result["bytes"].values()), style, label=result["method"])
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("workers")
    axes.set_ylabel("bytes sent by one worker in one step")
    axes.grid(visible=True, alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=7)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def distinct() -> list[str]:
    """Return the names of all compressors, one for each where several mean the same."""
    found: dict[Any, str] = {}
    for name in names():
        found.setdefault(compression(name), name)
    return list(found.values())


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Bytes per worker against the number of workers.")
    parser.add_argument("--method", default=",".join(distinct()), help="several, separated by commas (default: all)")
    parser.add_argument("--workers", default=WORKERS, help=f"numbers of workers (default: {WORKERS})")
    parser.add_argument("--output", type=Path, help="write traffic.json, traffic.md and traffic.png to this folder")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    workers = [int(n) for n in args.workers.split(",")]
    results = measure(args.method.split(","), workers)
    table = Table(title="bytes that one worker sends a step", box=box.SIMPLE_HEAD)
    for column in ("method", *(f"W={n}" for n in workers), "growth"):
        table.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    for result in results:
        table.add_row(*cells(result))
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        (args.output / "traffic.json").write_text(json.dumps({"model": MODEL, "results": results}, indent=1) + "\n")
        (args.output / "traffic.md").write_text(markdown(results, workers) + "\n![plot](traffic.png)\n")
        plot(results, args.output / "traffic.png")


if __name__ == "__main__":
    main()
