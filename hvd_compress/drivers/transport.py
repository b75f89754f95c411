"""The contract of a transport: what starts and finishes one collective. Everything else is shared."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any, final

from ..contract import AllGather, Array, Collective, Max, Mean, Sum
from ..exchange import BucketExchange, Meter
from ..ops import ArrayOps, ops_of


class Transport(ABC):
    """Starts and finishes collectives on 1-D buffers (AllToAll: world_size x n).

    Attributes:
        any_order: whether ranks may start collectives in different orders, as where they are matched by name.
    """

    any_order: bool = False

    @abstractmethod
    def start(self, request: Collective, name: str) -> Any:
        """Start a collective under a name that is equal on all ranks; return a handle, without waiting."""

    @abstractmethod
    def finish(self, handle: Any) -> Array:
        """Wait for a collective and return its result."""

    def arrived(self, handle: Any) -> bool:
        """Return whether `finish` would return at once; False if that is not known."""
        del handle
        return False


@final
class LoopbackTransport(Transport):
    """The collectives of a world of one: every result is the request's own array."""

    def start(self, request: Collective, name: str) -> Any:
        del name
        return request

    def finish(self, handle: Any) -> Array:
        ops: ArrayOps = ops_of(handle.array)
        if isinstance(handle, (Mean, Sum, Max)) and handle.donate:
            return handle.array
        result = ops.copy(handle.array)
        return ops.reshape(result, (1, -1)) if isinstance(handle, AllGather) else result

    def arrived(self, handle: Any) -> bool:
        return True


@final
class RoundTrip:
    """One bucket's exchange over a transport: starts each round, and goes on once the round has arrived."""

    def __init__(self, exchange: BucketExchange, transport: Transport, name: str, meter: Meter) -> None:
        self.exchange = exchange
        self._transport = transport
        self._name = name
        self._meter = meter
        self._handles: list[Any] = []
        self._start_round()

    def advance_if_arrived(self) -> None:
        """Go on for as long as nothing has to be waited for."""
        while self.has_arrived:
            self.advance()

    @property
    def has_arrived(self) -> bool:
        """Whether the round under way is there, so that nothing has to be waited for."""
        return not self.exchange.done and all(self._transport.arrived(handle) for handle in self._handles)

    @property
    def any_order(self) -> bool:
        """Whether ranks may go on with several round trips in different orders."""
        return self._transport.any_order

    def advance(self) -> None:
        """Wait for the round under way and start the next one."""
        self.exchange.meanwhile()
        started = time.perf_counter()
        results = [self._transport.finish(handle) for handle in self._handles]
        self._meter.wait_seconds += time.perf_counter() - started
        self.exchange.answer(results)
        self._start_round()

    def _start_round(self) -> None:
        started = time.perf_counter()
        number = self.exchange.round_number
        self._handles = [
            self._transport.start(fused.request, f"{self._name}.round{number}.{i}.{fused.label}")
            for i, fused in enumerate(self.exchange.pending)
        ]
        self._meter.wait_seconds += time.perf_counter() - started


def complete(trips: list[RoundTrip]) -> None:
    """Bring all round trips to their end, the one with the fewest rounds done first.

    No rank waits for a round that another has not started: of all that are waited for, take the lowest round; every
    rank has started that round of every trip, or it would itself be waiting for a lower one.
    """
    for trip in trips:
        trip.exchange.meanwhile()
    while live := [trip for trip in trips if not trip.exchange.done]:
        # What has arrived gives something to do while the others travel.
        arrived = (trip for trip in live if trip.any_order and trip.has_arrived)
        lowest = min(live, key=lambda trip: trip.exchange.round_number)
        next(arrived, lowest).advance()
