"""Eight workers in one process, no MPI and no Horovod: what do compressors do to a small regression?

Run it with `python examples/simulate.py --method dense,fp16,powersgd:rank=1`.
"""

from __future__ import annotations

import argparse

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from support.methods import compression

from hvd_compress import Simulator

INPUTS, OUTPUTS, BATCH = 48, 32, 16
METHODS = "dense,fp16,bf16,powersgd:rank=1,powersgd:rank=1:error_feedback=False,powersgd:rank=4"


def train(method: str, workers: int, steps: int, lr: float = 0.03) -> tuple[float, int]:
    """Fit y = T x by gradient descent; return the relative error of T and the bytes a worker sent per step."""
    truth = np.random.default_rng(0).standard_normal((OUTPUTS, INPUTS)).astype(np.float32)
    chance = [np.random.default_rng([1, rank]) for rank in range(workers)]
    simulator = Simulator(compression(method), workers)
    weight = np.zeros_like(truth)
    for _ in range(steps):
        inputs = [c.standard_normal((BATCH, INPUTS)).astype(np.float32) for c in chance]
        gradients = [{"weight": (weight - truth) @ x.T @ x / BATCH} for x in inputs]
        # Every worker gets the same mean; here they share one model.
        weight -= lr * simulator.step(gradients)[0]["weight"]
    error = np.linalg.norm(weight - truth) / np.linalg.norm(truth)
    return float(error), simulator.sent_bytes // steps


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare compressors among simulated workers.")
    parser.add_argument("--method", default=METHODS, help="several, separated by commas")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--steps", type=int, default=300)
    args = parser.parse_args()
    table = Table(title=f"{args.workers} simulated workers", box=box.SIMPLE_HEAD)
    table.add_column("method", no_wrap=True)
    table.add_column("relative error", justify="right")
    table.add_column("bytes sent a step", justify="right")
    for method in args.method.split(","):
        error, sent = train(method, args.workers, args.steps)
        table.add_row(method, f"{error:.1e}", f"{sent:,}")
    Console().print(table)


if __name__ == "__main__":
    main()
