"""Subjects: one compressor and one gradient, exchanged again and again, timed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

from ...contract import Array
from ...drivers import RoundTrip, complete
from ...exchange import Worker, make_plan, specs_of
from ...ops import ops_of
from ...registry import resolve
from .timed_transport import TimedTransport
from .world import World

_NAME = "gradient"
# Of methods that follow it.
_LEARNING_RATE = 0.1


@final
@dataclass(frozen=True)
class Sample:
    """One exchange, in seconds.

    Args:
        total: from the gradient to the mean.
        encode: local work before the first collective; None where it cannot be told apart.
        collective: in calls of the transport; None also for a codec by itself.
        decode: local work after the first collective was asked for.
    """

    total: float
    encode: float | None = None
    collective: float | None = None
    decode: float | None = None


class Subject(ABC):
    """What is timed.

    Attributes:
        local: what comes back is this rank's gradient, and no mean.
    """

    local: bool = False

    @abstractmethod
    def exchange(self) -> tuple[Array, Sample]:
        """Exchange the gradient once more; return the mean and how long it took."""


@final
class WorkerSubject(Subject):
    """An exchange by the worker that the drivers of torch and NumPy share, stage by stage.

    Args:
        compressor: a name, with settings if any.
        gradient: this rank's; left as it is.
        world: this process among the others.
        label: tells this subject's collectives from those of others.
    """

    def __init__(self, compressor: str, gradient: Array, world: World, label: str) -> None:
        self._gradient = gradient
        self._world = world
        self._label = label
        self._ops = ops_of(gradient)
        specs = specs_of({_NAME: gradient})
        plan = make_plan(resolve(compressor), specs, world.size, allow_larger=True)
        parameter = self._ops.zeros(self._ops.shape(gradient), self._ops.dtype(gradient))
        self._worker = Worker(plan, world.rank, world.size, lambda name: _LEARNING_RATE, lambda name: parameter)
        self._transport = TimedTransport(world.transport(), world.clock)

    def exchange(self) -> tuple[Array, Sample]:
        # A driver may overwrite gradients: they are the backward pass's, which makes them anew.
        own = {_NAME: self._ops.copy(self._gradient)}
        clock, worker = self._world.clock, self._worker
        self._world.gather(None)
        began = clock.mark()
        trip = RoundTrip(worker.begin(0, own), self._transport, self._label, worker.meter)
        complete([trip])
        mean = worker.finish(0, trip.exchange)[_NAME]
        ended = clock.mark()
        worker.end_step()
        total = clock.seconds(began, ended)
        first, collective = self._transport.taken()
        encode = total if first is None else clock.seconds(began, first)
        return mean, Sample(total, encode, collective, max(0.0, total - encode - collective))


@final
class GraphSubject(Subject):
    """An exchange of TensorFlow's, which is one graph: only its whole time is known.

    Args:
        compressor: a name, with settings if any.
        gradient: this rank's.
        world: this process among the others.
    """

    def __init__(self, compressor: str, gradient: Array, world: World) -> None:
        import tensorflow as tf

        from ...tensorflow.variable_exchange import VariableExchange

        self._gradient = gradient
        self._world = world
        variable = tf.Variable(tf.zeros_like(gradient), name=_NAME)
        exchange = VariableExchange(compressor, allow_larger=True)

        @tf.function(autograph=False)  # type: ignore[untyped-decorator, unused-ignore]
        def step(own: tf.Tensor) -> tf.Tensor:
            return exchange([own], [variable], learning_rate=_LEARNING_RATE)[0]

        self._step = step

    def exchange(self) -> tuple[Array, Sample]:
        self._world.gather(None)
        clock = self._world.clock
        began = clock.mark()
        mean = self._step(self._gradient)
        mean[0, 0].numpy()  # on a device the call returns early; reading a number waits
        return mean, Sample(clock.seconds(began, clock.mark()))
