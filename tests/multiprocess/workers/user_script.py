"""A training loop as somebody writes it for Horovod; only the import below is ever changed."""

import horovod.torch as hvd
import torch
from torch import nn


def train(**options):
    """Train a small classifier and return its parameters by name."""
    if not hvd.is_initialized():
        hvd.init()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(100 + hvd.rank())  # replicas start apart: broadcast_parameters brings them together
        model = nn.Sequential(nn.Linear(20, 32), nn.Tanh(), nn.Linear(32, 24), nn.Tanh(), nn.Linear(24, 5))
        data = torch.randn(16, 2, 12, 20)
    labels = data[..., :5].argmax(dim=-1)

    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    optimizer = hvd.DistributedOptimizer(
        optimizer, named_parameters=model.named_parameters(), backward_passes_per_step=2, **options
    )
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=5, gamma=0.5)
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    hvd.broadcast_optimizer_state(optimizer, root_rank=0)

    losses = []
    for step in range(16):
        optimizer.zero_grad()
        total = 0.0
        for half in range(2):
            loss = nn.functional.cross_entropy(model(data[step, half]), labels[step, half]) / 2
            loss.backward()
            total += loss.item()
        optimizer.synchronize()
        nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        with optimizer.skip_synchronize():
            optimizer.step()
        scheduler.step()
        losses.append(hvd.allreduce(torch.tensor(total), name="loss").item())
    if not losses[-1] < losses[0]:
        raise RuntimeError(f"Nothing was learnt: {losses}")
    if abs(scheduler.get_last_lr()[0] - 0.01 * 0.5**3) > 1e-12:
        raise RuntimeError(f"The schedule did not run: {scheduler.get_last_lr()}")
    return {name: p.detach().clone() for name, p in model.named_parameters()}
