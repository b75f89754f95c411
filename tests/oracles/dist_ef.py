"""dist-EF-SGD, dist-EF-SGDM and dist-EF-blockSGDM (Zheng, Huang, Kwok 2019, arXiv:1905.10936, Algorithms 1 to 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

Compress = Callable[[np.ndarray], np.ndarray]
Block = tuple[int, int]  # start and stop


class Run(NamedTuple):
    """The update of every step, and the state after the last one."""

    updates: list[np.ndarray]
    errors: list[np.ndarray]
    server_error: np.ndarray
    momenta: list[np.ndarray]


def dist_ef(
    gradients: Sequence[Sequence[np.ndarray]],
    rates: Sequence[float],
    compress: Compress,
    momentum: float = 0.0,
    cap: float = np.inf,
    rescale: bool = True,
    blocks: Sequence[Block] | None = None,
) -> Run:
    """Run W workers and their server; every rank applies x -= rates[t] * updates[t].

    Args:
        gradients: by step, then by worker.
        rates: the learning rate of every step. At a rate of 0 nothing is applied: the update is zero, the errors stay
            as they are, the last rate other than 0 counts as the one before, and only the momenta move.
        compress: what the workers and the server compress with.
        momentum: mu; 0 is dist-EF-SGD.
        cap: largest factor that errors are multiplied by.
        rescale: multiply the errors by the ratio of the rates; otherwise by 1.
        blocks: compress each of these by itself, in place of the whole vector.
    """
    if blocks is not None:
        compress = by_block(compress, blocks)
    momenta = [np.zeros(g.shape) for g in gradients[0]]
    errors = [np.zeros(g.shape) for g in gradients[0]]
    server_error = np.zeros(gradients[0][0].shape)
    updates = []
    last = 0.0  # eta_{-1}
    for own, rate in zip(gradients, rates, strict=True):
        momenta = [momentum * m + g for m, g in zip(momenta, own, strict=True)]
        if rate == 0.0:
            updates.append(np.zeros_like(server_error))
            continue
        ratio = min(last / rate, cap) if rescale else 1.0
        corrected = [momentum * m + g + ratio * e for m, g, e in zip(momenta, own, errors, strict=True)]
        sent = [compress(p) for p in corrected]
        errors = [p - s for p, s in zip(corrected, sent, strict=True)]
        gathered = np.mean(sent, axis=0) + ratio * server_error
        update = compress(gathered)
        server_error = gathered - update
        updates.append(update)
        last = rate
    return Run(updates, errors, server_error, momenta)


def by_block(compress: Compress, blocks: Sequence[Block]) -> Compress:
    """Return what compresses every block by itself; elements in no block become NaN."""

    def compressed(x: np.ndarray) -> np.ndarray:
        out = np.full(x.shape, np.nan)
        for start, stop in blocks:
            if stop > start:
                out[start:stop] = compress(x[start:stop])
        return out

    return compressed


def block_sign(blocks: Sequence[Block]) -> Compress:
    """Return the blockwise sign: mean|p| * sign(p) in every block, with sign(0) = +1."""
    return by_block(lambda p: np.mean(np.abs(p)) * np.where(p >= 0, 1.0, -1.0), blocks)


def shard_blocks(size: int, world: int) -> list[Block]:
    """Return what each rank serves: ceil(size / world) elements, fewer or none for the last ranks."""
    length = -(-size // world)
    return [(min(rank * length, size), min((rank + 1) * length, size)) for rank in range(world)]


def pieces(blocks: Sequence[Block], shards: Sequence[Block]) -> list[Block]:
    """Return the parts into which shards cut blocks, without the empty ones: a scale per (block, shard)."""
    cuts = [(max(a, c), min(b, d)) for a, b in blocks for c, d in shards]
    return [(start, stop) for start, stop in cuts if start < stop]


def decay(
    parameters: np.ndarray, buffer: np.ndarray, momentum: float, weight_decay: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return what weight decay adds to the update, uncompressed, and its own Nesterov buffer after this step.

    The buffer starts from zero: n <- mu n + wd x; the update gets wd x + mu n.
    """
    buffer = momentum * buffer + weight_decay * parameters
    return weight_decay * parameters + momentum * buffer, buffer


def virtual_iterate(x: np.ndarray, rate: float, server_error: np.ndarray, errors: Sequence[np.ndarray]) -> np.ndarray:
    """Return x - rate (E + mean_i e_i): x after a step, and the last rate other than 0 up to that step.

    Without a cap and with rescaling it equals what `nesterov_sgd` does with the mean gradients.
    """
    mean_error = np.mean(errors, axis=0)
    virtual: np.ndarray = x - rate * (server_error + mean_error)
    return virtual


def nesterov_sgd(
    mean_gradients: Sequence[np.ndarray],
    rates: Sequence[float],
    x0: np.ndarray,
    momentum: float,
    weight_decay: float = 0.0,
) -> list[np.ndarray]:
    """Return x after every step of torch.optim.SGD(nesterov=True); without momentum, of plain SGD."""
    x = np.array(x0, np.float64)
    buffer = np.zeros_like(x)
    iterates = []
    for g, rate in zip(mean_gradients, rates, strict=True):
        g = g + weight_decay * x
        buffer = momentum * buffer + g
        x = x - rate * (g + momentum * buffer)
        iterates.append(x)
    return iterates
