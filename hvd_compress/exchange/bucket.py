"""BucketExchange: the exchanges of one bucket's units at one step, advancing round by round together."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import final

from ..contract import Array, Batched, Collective, Exchange, Exchanged, Max, Mean, Meanwhile, Request, Round, Sum
from ..errors import UsageError
from ..ops import ArrayOps
from .batching import answer_batched
from .fusion import Fused, empty_result, fuse
from .meter import Meter


@final
class BucketExchange:
    """Runs the generators of several units in lockstep and fuses what they ask for.

    `Batched` requests are answered here, before the round's collectives are fused: drivers see only the latter.

    A driver starts every collective in `pending` (named by `round_number` and position), may call `meanwhile()`,
    and hands the results to `answer`; until `done`. `outcomes` then holds what each unit ended with.

    Args:
        exchanges: generator and array operations by unit name.
        world_size: number of workers.
        meter: what this costs is added to it.
        sizes: of units that stand for several, the elements of each of these, for the meter.
        apart_bytes: from which what may stay apart does.
    """

    def __init__(
        self,
        exchanges: Mapping[str, tuple[Exchange, ArrayOps]],
        world_size: int,
        meter: Meter,
        sizes: Mapping[str, Sequence[int]] | None = None,
        apart_bytes: float = math.inf,
    ) -> None:
        self.outcomes: dict[str, Exchanged] = {}
        self.pending: list[Fused] = []
        self.round_number = -1
        self._live = dict(exchanges)
        self._world_size = world_size
        self._meter = meter
        self._sizes = sizes or {}
        self._apart_bytes = apart_bytes
        self._asked: list[tuple[str, int, Request]] = []
        self._local: dict[int, object] = {}
        self._advance(None)

    @property
    def done(self) -> bool:
        """Whether every unit has ended."""
        return not self._live

    def meanwhile(self) -> None:
        """Do the local work of this round; worth calling once its collectives are under way."""
        started = time.perf_counter()
        for position, (_, _, request) in enumerate(self._asked):
            if isinstance(request, Meanwhile) and position not in self._local:
                self._local[position] = request.work()
        self._meter.compress_seconds += time.perf_counter() - started

    def answer(self, results: list[Array]) -> None:
        """Hand over the results of `pending`, in its order, and go on to the next round."""
        if len(results) != len(self.pending):
            raise UsageError(f"{len(self.pending)} collectives were pending, but {len(results)} results were given.")
        self.meanwhile()
        answers: dict[int, object] = dict(self._local)
        for fused, result in zip(self.pending, results, strict=True):
            answers.update(fused.unpack(result))
        by_unit: dict[str, list[object]] = {name: [] for name in self._live}
        for position, (name, _, request) in enumerate(self._asked):
            if position not in answers:
                assert not isinstance(request, (Meanwhile, Batched))
                answers[position] = empty_result(request, self._live[name][1], self._world_size)
            by_unit[name].append(answers[position])
        self._advance(by_unit)

    def _advance(self, answers: Mapping[str, list[object]] | None) -> None:
        """Send each unit its answers, or start it, until all have asked for collectives or ended; then fuse."""
        started = time.perf_counter()
        rounds: dict[str, Round] = {}
        ready: Mapping[str, list[object] | None] = dict.fromkeys(self._live) if answers is None else answers
        while ready:
            for name, results in ready.items():
                try:
                    rounds[name] = self._live[name][0].send(results)  # type: ignore[arg-type]
                except StopIteration as end:
                    self.outcomes[name] = end.value
                    del self._live[name]
                    rounds.pop(name, None)
            ready = answer_batched({name: (rounds[name], ops) for name, (_, ops) in self._live.items()})
        self._local = {}
        self._asked = [(name, part, request) for name in self._live for part, request in enumerate(rounds[name])]
        collectives: list[tuple[int, Collective, ArrayOps]] = []
        for position, (name, _, request) in enumerate(self._asked):
            if not isinstance(request, (Meanwhile, Batched)):
                ops = self._live[name][1]
                if name in self._sizes and isinstance(request, (Mean, Sum, Max)):
                    # None of the many is large, and together they are in a buffer of their own already.
                    request = replace(request, apart=False)
                collectives.append((position, request, ops))
                self._meter.count(request, ops, self._world_size, self._sizes.get(name))
        self.pending = fuse(collectives, self._apart_bytes)
        self._meter.collectives += len(self.pending)
        self.round_number += 1
        self._meter.compress_seconds += time.perf_counter() - started
