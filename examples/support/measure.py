"""What a training step costs: host time, split into compute, compress and communicate where it can be, and bytes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hvd_compress import Codec, Operator
from hvd_compress.contract import AllGather, Mean, Spec, sent_bytes
from hvd_compress.exchange import Phases, make_plan

PARTS = ("step", "compute", "compress", "communicate")


class StepClock:
    """Takes the time of every step and asks the exchange's meter for its share.

    compress: inside compressors. communicate: starting collectives and waiting for them, so what overlaps with backward
    costs nothing here. compute: everything else.

    Args:
        meter: of the exchange; None where one graph holds the whole step, so that only its total is known.
        wait: waits for what an accelerator has not finished.
    """

    def __init__(self, meter: Any = None, wait: Callable[[], object] | None = None) -> None:
        self._meter = meter
        self._wait = wait
        self._times: list[tuple[float, ...]] = []

    @contextmanager
    def step(self) -> Iterator[None]:
        """Time one step."""
        compress, communicate = self._shares()
        start = time.perf_counter()
        yield
        if self._wait is not None:
            self._wait()
        total = time.perf_counter() - start
        if self._meter is None:
            self._times.append((total,))
            return
        now = self._shares()
        compress, communicate = now[0] - compress, now[1] - communicate
        self._times.append((total, total - compress - communicate, compress, communicate))

    def typical(self) -> dict[str, float]:
        """Return the milliseconds of each part: means over the middle half of the steps by duration.

        The first tenth of the steps is left out. The parts add up to the step.
        """
        steady = sorted(self._times[len(self._times) // 10 :])
        middle = steady[len(steady) // 4 : -(len(steady) // 4) or None]
        columns = zip(PARTS, zip(*middle, strict=True), strict=False)
        return {part: 1e3 * statistics.fmean(times) for part, times in columns}

    def _shares(self) -> tuple[float, float]:
        return (0.0, 0.0) if self._meter is None else (self._meter.compress_seconds, self._meter.wait_seconds)


def dense_bytes(parameter_bytes: Iterable[int], world_size: int) -> int:
    """Return the bytes that one worker would send for one step without compression.

    Args:
        parameter_bytes: of each parameter.
        world_size: number of workers.
    """
    return sum(sent_bytes(Mean, nbytes, world_size) for nbytes in parameter_bytes)


def planned_bytes(compressor: Operator | Codec, variables: Sequence[Any], world_size: int, steps: int) -> int:
    """Return the bytes that one worker sends in the first steps, from shapes alone, since a graph counts nothing.

    Args:
        compressor: the method.
        variables: of Keras, whose gradients are exchanged.
        world_size: number of workers.
        steps: how many.
    """
    specs = [(v.path, Spec(tuple(v.shape), v.dtype, output_axis=-1)) for v in reversed(variables)]
    plan = make_plan(compressor, specs, world_size)
    phases, of_phase, total = Phases.of(plan), {}, 0
    for step in range(steps):
        number = phases.number(step)
        if number not in of_phase:
            of_phase[number] = plan.wire_bytes(world_size, step)
        total += of_phase[number]
    return total


def gathered_bytes(embedding: Any, rows: int, world_size: int) -> int:
    """Return the bytes that one worker sends for the sparse gradient of an embedding of float32 in one step.

    Args:
        embedding: its variable.
        rows: that one worker looks up.
        world_size: number of workers.
    """
    number, values = 8, 4 * embedding.shape[-1]
    placeholder = 1  # so that no worker sends nothing
    return sent_bytes(AllGather, (number + values) * (rows + placeholder), world_size)
