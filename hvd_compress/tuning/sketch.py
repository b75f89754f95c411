"""tune_sketch: how large a sketch must be to find the largest coordinates of given gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..contract import Array
from ..errors import ConfigurationError
from ..operators import CountSketch, SketchSize
from ..operators.sketch import Hashing
from ..ops import ArrayOps, ops_of


@dataclass(frozen=True)
class SketchTrial:
    """What a sketch of one size recovers.

    Args:
        size: rows, columns and candidates: settings of `CountSketch`.
        numbers: that travel a step, r c + P k; a plain average sends d.
        found: share of the true k largest coordinates of the mean gradient that are among the candidates, 0 to 1.
        norm: ||what would be applied||^2 / ||the true k largest||^2, 0 to 1.
    """

    size: SketchSize
    numbers: int
    found: float
    norm: float


@dataclass(frozen=True)
class SketchTuning:
    """All trials, and the one to use.

    Args:
        trials: cheapest first.
        cheapest: the first trial that reaches the target; None if none does.
    """

    trials: tuple[SketchTrial, ...]
    cheapest: SketchTrial | None


def tune_sketch(
    gradients: Sequence[Array],
    k: int,
    *,
    rows: Sequence[int] = (1, 3, 5, 7),
    widths: Sequence[float] = (0.5, 1.0, 2.0, 4.0, 8.0),
    candidates: Sequence[int] = (1, 2, 4, 8, 16),
    target: float = 0.9,
    hashing: Hashing = "rotation",
    seed: int = 0,
) -> SketchTuning:
    """Measure which part of the largest coordinates sketches of many sizes find.

    The sketch is linear, so that only the mean over workers matters. Take gradients from some way into training, and
    for `SketchedSGD` better its v = the "error" in the state than g: momentum and feedback change what is largest.

    Args:
        gradients: the whole model's, by worker: NumPy arrays or torch tensors of one shape.
        k: coordinates applied a step, 1 .. d.
        rows: r to try, odd.
        widths: columns to try, in multiples of k.
        candidates: P to try.
        target: the least `norm` that is good enough, 0 to 1.
        hashing: as in `CountSketch`.
        seed: of the hash functions.

    Raises:
        ConfigurationError: there is no gradient, or k, the target or a size is out of range.
    """
    if not gradients:
        raise ConfigurationError("tune_sketch(gradients=[]): give at least one worker's gradient.")
    if not 0.0 <= target <= 1.0:
        raise ConfigurationError(f"tune_sketch(target={target!r}): target must be a number from 0 to 1.")
    ops = ops_of(gradients[0])
    mean = _mean(gradients, ops)
    d = ops.shape(mean)[0]
    if not 1 <= k <= d:
        raise ConfigurationError(f"tune_sketch(k={k!r}): k must be a whole number from 1 to d={d}.")
    trials = [
        trial
        for r in rows
        for c in sorted({max(1, min(d, round(width * k))) for width in widths})
        for trial in _trials(CountSketch(k=k, rows=r, columns=c, hashing=hashing, seed=seed), mean, candidates, ops)
    ]
    trials.sort(key=lambda trial: (trial.numbers, -trial.norm))
    return SketchTuning(tuple(trials), next((trial for trial in trials if trial.norm >= target), None))


def _trials(operator: CountSketch, mean: Array, candidates: Sequence[int], ops: ArrayOps) -> Iterator[SketchTrial]:
    """Yield what one table recovers with each number of candidates."""
    d = ops.shape(mean)[0]
    k = operator.applied(d)
    magnitudes = ops.abs(mean)
    squares = ops.cast(magnitudes, "float64") * ops.cast(magnitudes, "float64")
    best = ops.largest(magnitudes, k)
    is_best = ops.put_(ops.zeros((d,), "float64"), best, 1.0)
    whole = float(ops.sum(ops.take(squares, best)))
    hashes = operator.hashes(d, ops)
    estimates = ops.abs(hashes.estimates(hashes.sketch(mean)))
    for p in candidates:
        size = SketchSize(operator.rows, hashes.columns, p)
        asked = ops.largest(estimates, min(p * k, d))
        applied = ops.take(asked, ops.largest(ops.take(magnitudes, asked), k))
        found = float(ops.sum(ops.take(is_best, asked))) / k
        norm = float(ops.sum(ops.take(squares, applied))) / whole if whole else 1.0
        yield SketchTrial(size, size.numbers(k), found, norm)


def _mean(gradients: Sequence[Array], ops: ArrayOps) -> Array:
    """Return the mean over workers, flat, in at least float32."""
    dtype = "float64" if ops.dtype(gradients[0]) == "float64" else "float32"
    total = ops.copy(ops.flatten(ops.cast(gradients[0], dtype)))
    for other in gradients[1:]:
        total = ops.add_(total, ops.flatten(ops.cast(other, dtype)))
    return ops.scale_(total, 1.0 / len(gradients))
