"""Softmax regression on Fashion-MNIST with NumPy, mpi4py and compressed gradients.

Run it with `mpirun -np 2 python examples/numpy_mpi.py --method powersgd:rank=2`.
"""

from __future__ import annotations

import argparse

import numpy as np
from mpi4py import MPI
from support import data
from support.methods import compression

from hvd_compress.mpi import GradientExchange


def load(part: str) -> tuple[np.ndarray, np.ndarray]:
    images, labels = data.load(part)
    return images.reshape(len(images), -1).astype(np.float32) / 255.0, labels


def gradients(parameters: dict[str, np.ndarray], images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """The gradient of the mean cross-entropy."""
    scores = images @ parameters["weight"].T + parameters["bias"]
    error = np.exp(scores - scores.max(axis=1, keepdims=True))
    error /= error.sum(axis=1, keepdims=True)
    error[np.arange(len(labels)), labels] -= 1.0
    return {"weight": error.T @ images / len(labels), "bias": error.mean(axis=0)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Softmax regression with compressed gradients over MPI.")
    parser.add_argument("--method", type=compression, default="powersgd:rank=2")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=128, help="images per worker and step")
    parser.add_argument("--lr", type=float, default=0.1)
    args = parser.parse_args()

    comm = MPI.COMM_WORLD
    images, labels = (array[comm.rank :: comm.size] for array in load("train"))
    exchange = GradientExchange(args.method, comm)
    parameters = {"weight": np.zeros((10, images.shape[1]), np.float32), "bias": np.zeros(10, np.float32)}
    chance = np.random.default_rng(comm.rank)
    for _ in range(args.steps):
        batch = chance.integers(len(images), size=args.batch_size)
        means = exchange(gradients(parameters, images[batch], labels[batch]), donate=True)
        for name, mean in means.items():
            parameters[name] -= args.lr * mean

    if comm.rank == 0:
        test_images, test_labels = load("t10k")
        answers = (test_images @ parameters["weight"].T + parameters["bias"]).argmax(axis=1)
        sent = exchange.meter.sent_bytes / exchange.meter.steps
        print(f"{exchange.compressor}: test accuracy {(answers == test_labels).mean():.2%}, {sent:,.0f} bytes a step")


if __name__ == "__main__":
    main()
