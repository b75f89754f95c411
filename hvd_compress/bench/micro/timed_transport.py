"""TimedTransport: any transport, with the moments at which collectives are asked for and are there."""

from __future__ import annotations

from typing import Any, final

from ...contract import Array, Collective
from ...drivers import Transport
from .clock import Clock


@final
class TimedTransport(Transport):
    """Starts and finishes collectives by another transport, and keeps the moments before and after each call.

    Args:
        inner: does the work.
        clock: tells the time.
    """

    def __init__(self, inner: Transport, clock: Clock) -> None:
        self._inner = inner
        self._clock = clock
        self._spans: list[tuple[Any, Any]] = []

    def start(self, request: Collective, name: str) -> Any:
        began = self._clock.mark()
        handle = self._inner.start(request, name)
        self._spans.append((began, self._clock.mark()))
        return handle

    def finish(self, handle: Any) -> Array:
        began = self._clock.mark()
        result = self._inner.finish(handle)
        self._spans.append((began, self._clock.mark()))
        return result

    def taken(self) -> tuple[Any | None, float]:
        """Return when the first collective was asked for, and the seconds in all calls; forget both."""
        spans, self._spans = self._spans, []
        return (spans[0][0] if spans else None), sum(self._clock.seconds(*span) for span in spans)
