"""Train a CNN of 207,000 parameters on Fashion-MNIST with Horovod.

Run it with `horovodrun -np 2 python examples/fashion_mnist.py --method powersgd:rank=4`.

A script for plain Horovod differs in two places, marked (1) and (2).
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from support import data, script
from support.measure import StepClock, dense_bytes
from support.progress import Progress
from support.recipes import recipe
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, TensorDataset

import hvd_compress.torch as hvd  # (1) was: import horovod.torch as hvd

EVALUATIONS = 10  # on the test set, while it trains


def make_model() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def load(part: str) -> TensorDataset:
    images, labels = data.load(part)
    return TensorDataset(torch.tensor(images[:, None]), torch.tensor(labels, dtype=torch.int64))


def normalize(images: Tensor, device: torch.device) -> Tensor:
    return (images.to(device, torch.float32) / 255.0 - 0.286) / 0.353


def training_batches(dataset: TensorDataset, batch_size: int, seed: int) -> Iterator[Any]:
    """Batches of this rank's shard, epoch after epoch, shuffled anew in each."""
    sampler: DistributedSampler[Any] = DistributedSampler(dataset, hvd.size(), hvd.rank(), seed=seed, drop_last=True)
    loader = DataLoader(dataset, sampler=BatchSampler(sampler, batch_size, drop_last=True), batch_size=None)
    for epoch in itertools.count():
        sampler.set_epoch(epoch)
        yield from loader


@torch.no_grad()
def accuracy(model: nn.Module, test_set: TensorDataset, device: torch.device) -> float:
    """The share of all test images that the model gets right; every rank looks at its part of them."""
    images, labels = (tensor[hvd.rank() :: hvd.size()] for tensor in test_set.tensors)
    right = sum(
        (model(normalize(x, device)).argmax(1) == y.to(device)).sum()
        for x, y in zip(images.split(500), labels.split(500), strict=True)
    )
    return float(hvd.allreduce(torch.as_tensor(right, dtype=torch.float64), op=hvd.Sum, name="right")) / len(test_set)


def train(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    torch.manual_seed(args.seed)
    model = make_model().to(device)
    chosen = recipe(args.method, args.lr)
    optimizer: Any = torch.optim.SGD(
        model.parameters(),
        lr=chosen.lr,
        momentum=chosen.momentum,
        nesterov=chosen.nesterov,
        weight_decay=chosen.weight_decay,
    )
    optimizer = hvd.DistributedOptimizer(
        optimizer,
        named_parameters=model.named_parameters(),
        compression=args.method,  # (2) was: hvd.Compression.none or hvd.Compression.fp16
    )
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    hvd.broadcast_optimizer_state(optimizer, root_rank=0)

    training_set, test_set = load("train"), load("t10k")
    steps = args.steps or args.epochs * (len(training_set) // hvd.size() // args.batch_size)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, chosen.lr, total_steps=steps + 1, cycle_momentum=False)
    batches = itertools.islice(training_batches(training_set, args.batch_size, args.seed), steps)
    meter, curve = optimizer.exchange.meter, []
    clock = StepClock(meter, torch.cuda.synchronize if device.type == "cuda" else None)
    with Progress(steps, hvd.rank(), hvd.size()) as progress:
        for step, (images, labels) in enumerate(batches, start=1):
            with clock.step():
                optimizer.zero_grad()
                loss = F.cross_entropy(model(normalize(images, device)), labels.to(device))
                loss.backward()
                optimizer.step()
                scheduler.step()
            if progress.due(step):
                progress.report(step, loss.item())
            if step * EVALUATIONS % steps < EVALUATIONS:
                curve.append({"step": step, "bytes": meter.sent_bytes, "accuracy": accuracy(model, test_set, device)})
    return {
        "compression": repr(optimizer.compression),
        "workers": hvd.size(),
        "steps": steps,
        "seed": args.seed,
        "accuracy": curve[-1]["accuracy"],
        "bytes_per_step": round(meter.sent_bytes / meter.steps),
        "dense_bytes_per_step": dense_bytes((p.numel() * p.element_size() for p in model.parameters()), hvd.size()),
        "collectives_per_step": meter.collectives / meter.steps,
        "milliseconds": clock.typical(),
        "curve": curve,
    }


def main() -> None:
    args = script.arguments("Train a CNN on Fashion-MNIST with compressed gradients.")
    hvd.init()
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", hvd.local_rank() % torch.cuda.device_count())
        torch.cuda.set_device(device)
    result = train(args, device)
    if hvd.rank() == 0:
        script.finish(result, args.json)
    hvd.shutdown()


if __name__ == "__main__":
    main()
