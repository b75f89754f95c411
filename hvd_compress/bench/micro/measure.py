"""measure: times of all compressors for every size, in turn, against a copy of the same gradient in the same run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from ...contract import DTYPE_BYTES, Spec
from ...description import describe
from ...ops import ops_of
from .codec_subject import CodecSubject, codec_of
from .settings import MicroSettings
from .subject import GraphSubject, Sample, Subject, WorkerSubject
from .world import World


@final
@dataclass(frozen=True)
class Point:
    """What one compressor costs for a gradient of one size; times are medians, in seconds.

    Args:
        compressor: as it was asked for; after "codec:" a codec by itself.
        nbytes: of the gradient.
        total: from the gradient to the mean; of a codec by itself, encoding and decoding.
        fastest: the shortest of them.
        slowest: the longest of them.
        encode: see `Sample`; None where stages cannot be told apart.
        collective: see `Sample`; None for a codec by itself.
        decode: see `Sample`.
        copy: one copy of the gradient into memory that is there already.
        workers: that `wire_bytes` and `ratio` are for: at least 2.
        wire_bytes: that a worker sends; of a codec by itself, that its parts have.
        ratio: how many times fewer than for a plain average; of a codec by itself, than the gradient has.
        state_bytes: that a worker keeps between steps, as declared.
        relative_error: ||first mean - true mean|| / ||true mean||; of a codec by itself, of the rank's own gradient.
    """

    compressor: str
    nbytes: int
    total: float
    fastest: float
    slowest: float
    encode: float | None
    collective: float | None
    decode: float | None
    copy: float
    workers: int
    wire_bytes: float
    ratio: float
    state_bytes: int
    relative_error: float

    @property
    def copies(self) -> float:
        """How many copies of the gradient the exchange takes as long as."""
        return self.total / self.copy


def measure(settings: MicroSettings, world: World, progress: Callable[[], object] = lambda: None) -> Iterator[Point]:
    """Yield a point for every size and compressor; all ranks call it together.

    Args:
        settings: what to measure; equal on all ranks.
        world: this process among the others.
        progress: called after every round of exchanges.
    """
    for size in settings.sizes:
        yield from _points(settings, world, size, progress)


def _points(settings: MicroSettings, world: World, size: int, progress: Callable[[], object]) -> list[Point]:
    shape = matrix_shape(size // DTYPE_BYTES[settings.dtype])
    drawn = _drawn(settings, shape, world.rank)
    gradient = world.array(drawn, settings.dtype)
    true = _mean(settings, shape, world.size)
    subjects = [_subject(settings, name, gradient, world, i) for i, name in enumerate(settings.compressors)]
    copier = world.copier(gradient)
    errors: list[float] = []
    samples: list[list[Sample]] = [[] for _ in subjects]
    copies: list[float] = []
    for repeat in range(settings.warmup + settings.repeats):
        timed = repeat >= settings.warmup
        for subject, found in zip(subjects, samples, strict=True):
            if settings.device == "cpu":
                _warm(size)
            copier()  # the exchange, too, finds its gradient where it was just written
            copy = _timed(copier, world)
            mean, sample = subject.exchange()
            if repeat == 0:
                errors.append(_relative_error(ops_of(mean).to_numpy(mean), drawn if subject.local else true))
            if timed:
                found.append(sample)
                copies.append(copy)
        progress()
    yardstick = statistics.median(copies)
    return [
        _point(name, settings, shape, world.size, found, yardstick, error)
        for name, found, error in zip(settings.compressors, samples, errors, strict=True)
    ]


def matrix_shape(elements: int) -> tuple[int, int]:
    """Return a matrix of about so many elements, at least one: rows are a power of 2."""
    rows = 1
    while (2 * rows) ** 2 <= elements:
        rows *= 2
    return rows, max(1, elements // rows)


def _subject(settings: MicroSettings, name: str, gradient: Any, world: World, number: int) -> Subject:
    codec = codec_of(name)
    if codec is not None:
        return CodecSubject(codec, gradient, world)
    if settings.library == "tensorflow":
        return GraphSubject(name, gradient, world)
    return WorkerSubject(name, gradient, world, f"bench.{number}")


def _drawn(settings: MicroSettings, shape: tuple[int, int], rank: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng([settings.seed, rank]).standard_normal(shape, dtype=np.float32)


def _mean(settings: MicroSettings, shape: tuple[int, int], size: int) -> np.ndarray[Any, Any]:
    total = np.zeros(shape)
    for rank in range(size):
        total += _drawn(settings, shape, rank)
    return total / size


def _relative_error(mean: np.ndarray[Any, Any], true: np.ndarray[Any, Any]) -> float:
    return float(np.linalg.norm(mean.astype(np.float64) - true) / np.linalg.norm(true))


def _warm(nbytes: int) -> None:
    """Have memory for three gradients handed out and take it back: an own copy, what is encoded and what is decoded.

    A virtual machine gives memory that is free for seconds back to its host, and takes many times as long to get it
    again; by turns, rows of large gradients would all wait for that, which no process does that exchanges all the time.
    """
    held = [np.ones(nbytes, np.uint8) for _ in range(3)]
    held.clear()


def _timed(work: Callable[[], object], world: World) -> float:
    began = world.clock.mark()
    work()
    return world.clock.seconds(began, world.clock.mark())


def _declared(name: str, spec: Spec, workers: int) -> tuple[float, float, int]:
    """Return bytes sent, how many times fewer they are, and bytes of state."""
    codec = codec_of(name)
    if codec is not None:
        written = sum(count * DTYPE_BYTES[dtype] for count, dtype in codec.payload(spec))
        return written, spec.nbytes / written, 0
    described = describe(name, [("gradient", spec)], workers, allow_larger=True)
    return described.wire_bytes, described.ratio, described.state_bytes


def _point(
    name: str,
    settings: MicroSettings,
    shape: tuple[int, int],
    size: int,
    samples: list[Sample],
    copy: float,
    error: float,
) -> Point:
    workers = max(2, size)
    wire_bytes, ratio, state_bytes = _declared(name, Spec(shape, settings.dtype), workers)
    totals = [sample.total for sample in samples]

    def median(part: str) -> float | None:
        found = [getattr(sample, part) for sample in samples]
        return None if None in found else statistics.median(found)

    return Point(
        compressor=name,
        nbytes=shape[0] * shape[1] * DTYPE_BYTES[settings.dtype],
        total=statistics.median(totals),
        fastest=min(totals),
        slowest=max(totals),
        encode=median("encode"),
        collective=median("collective"),
        decode=median("decode"),
        copy=copy,
        workers=workers,
        wire_bytes=wire_bytes,
        ratio=ratio,
        state_bytes=state_bytes,
        relative_error=error,
    )
