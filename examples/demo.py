"""Train the same CNN with several compressors, two workers each, and compare: what `make demo` runs.

- `python examples/demo.py`: dense, fp16, and the four systems: PowerSGD, dist-EF-blockSGDM, Sketched-SGD, ScaleCom
- `python examples/demo.py --method dense,powersgd:rank=1`: others
- `python examples/demo.py --framework keras`: the same with Keras, or with `tensorflow`
- `python examples/demo.py --output docs --readme README.md`: refreshes the documentation
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from support import reporting
from support.launching import LaunchError, python, run_workers
from support.methods import compression
from support.progress import make_bar

FOLDER = Path(__file__).resolve().parent
METHODS = "dense,fp16,powersgd,distefblocksgdm,sketchedsgd,scalecom"


@dataclass(frozen=True)
class Framework:
    """What trains.

    Args:
        script: of this folder.
        packages: by the name under which their versions belong to the numbers.
        optimizer: in words.
        results: how the files with the results are called.
    """

    script: str
    packages: Mapping[str, str]
    optimizer: str
    results: str


SGD = (
    "SGD with Nesterov momentum 0.9 and weight decay 5e-4, for methods that have momentum themselves without, and 5e-3"
)
DECOUPLED = (
    "SGD with Nesterov momentum 0.9, for methods that have momentum themselves without, and decoupled weight decay 5e-3"
)
FRAMEWORKS = {
    "torch": Framework("fashion_mnist.py", {"torch": "torch"}, SGD, "demo"),
    "tensorflow": Framework(
        "tensorflow_fashion_mnist.py", {"TensorFlow": "tensorflow", "Keras": "keras"}, DECOUPLED, "demo.tensorflow"
    ),
    "keras": Framework(
        "keras_fashion_mnist.py", {"Keras": "keras", "TensorFlow": "tensorflow"}, DECOUPLED, "demo.keras"
    ),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare gradient compression methods on Fashion-MNIST.")
    parser.add_argument("--framework", choices=FRAMEWORKS, default="torch")
    parser.add_argument("--method", type=methods, default=METHODS, help=f"separated by commas (default: {METHODS})")
    parser.add_argument("--np", type=int, default=2, help="workers, all on this machine")
    parser.add_argument("--transport", choices=("gloo", "mpi"), default="gloo")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=0, help="this many steps instead of whole epochs")
    parser.add_argument("--batch-size", type=int, default=64, help="images per worker and step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=600.0, help="seconds that one method may take")
    parser.add_argument("--output", type=Path, default=FOLDER.parent / "build" / "demo", help="folder for the results")
    parser.add_argument("--readme", type=Path, help="put the table into this Markdown file, between its markers")
    return parser.parse_args()


def methods(text: str) -> list[str]:
    """Return the methods named, having checked that each of them exists."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        compression(name)
    if not names:
        raise argparse.ArgumentTypeError("name at least one method, as in dense,powersgd:rank=2")
    return names


def machine(framework: Framework) -> dict[str, Any]:
    """Return what a reader of the numbers must know."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "architecture": platform.machine(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "libraries": {
            name: version_of(package) for name, package in {**framework.packages, "Horovod": "horovod"}.items()
        },
    }


def version_of(package: str) -> str:
    """Return the version of a package, also of one of the names under which TensorFlow is installed."""
    for name in (package, f"{package}-cpu"):
        with contextlib.suppress(PackageNotFoundError):
            return version(name)
    return "?"


def train(method: str, args: argparse.Namespace, logs: Path, console: Console) -> dict[str, Any]:
    """Run the training script with one method and return what it measured."""
    stem = method.replace(":", "-").replace("=", "-")
    measured = logs / f"{stem}.json"
    length = ("--steps", args.steps) if args.steps else ("--epochs", args.epochs)
    settings = ("--batch-size", args.batch_size, "--seed", args.seed, "--json", measured, "--method", method)
    with make_bar(console) as bar:
        task = bar.add_task(f"{method:<18}", total=None, loss=float("nan"))

        def show(done: int, total: int, loss: float) -> None:
            bar.update(task, completed=done, total=total, loss=loss)

        program = python(FOLDER / FRAMEWORKS[args.framework].script, *length, *settings)
        run_workers(program, args.np, args.transport, logs / f"{stem}.log", args.limit, show)
    result: dict[str, Any] = json.loads(measured.read_text())
    return {"method": method, **result}


def run_all(args: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Run every method in turn; the logs are kept only if one fails."""
    found, start = machine(FRAMEWORKS[args.framework]), time.monotonic()
    logs = Path(tempfile.mkdtemp(prefix="hvd_compress-demo-"))
    results = [train(method, args, logs, console) for method in args.method]
    shutil.rmtree(logs)
    run = {
        "framework": args.framework,
        "optimizer": FRAMEWORKS[args.framework].optimizer,
        "workers": args.np,
        "transport": args.transport,
        "steps": results[0]["steps"],
        "batch_size": args.batch_size,
        "seed": args.seed,
        "seconds": round(time.monotonic() - start, 1),
    }
    return {"machine": found, "run": run, "results": results}


def write(report: dict[str, Any], output: Path, readme: Path | None) -> list[Path]:
    """Write the measurements, the plot and the table; return where they are."""
    framework = report["run"]["framework"]
    stem, asked = FRAMEWORKS[framework].results, "" if framework == "torch" else f" FRAMEWORK={framework}"
    numbers, page, picture = (output / f"{stem}.{kind}" for kind in ("json", "md", "png"))
    output.mkdir(parents=True, exist_ok=True)
    numbers.write_text(json.dumps(report, indent=1) + "\n")
    page.write_text(f"# A run of `make demo{asked}`\n\n{reporting.markdown(report)}\n![plot]({picture.name})\n")
    reporting.plot(report["results"], picture)
    if readme:
        reporting.rewrite(readme, report)
    return [picture, numbers, page]


def main() -> None:
    args = arguments()
    if args.np < 1:
        sys.exit(f"--np {args.np}: give a number of workers of at least 1.")
    console = Console()
    try:
        report = run_all(args, console)
    except LaunchError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("interrupted; the workers were ended")
    written = write(report, args.output, args.readme)
    console.print(reporting.table(report))
    for path in written:
        console.print(f"wrote {path}", soft_wrap=True)
    console.print(f"{report['run']['seconds']:.0f} seconds in all")


if __name__ == "__main__":
    main()
