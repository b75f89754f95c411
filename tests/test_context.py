"""An operator is told where and when it works: name, step, rank, world and the live learning rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cases import NUMPY, normal_gradients

from hvd_compress import ErrorFeedback, Operator, Simulator, Spec
from hvd_compress.contract import Context, Exchange, Exchanged, Mean, Payload, Traffic

SEEN: list[Context] = []


@dataclass(frozen=True, repr=False)
class Watching(Operator):
    """Averages, and takes down every context."""

    def exchange(self, grad: Any, state: dict[str, Any], context: Context) -> Exchange:
        SEEN.append(context)
        (mean,) = yield [Mean(grad)]
        return Exchanged(mean, None, state)

    def traffic(self, spec: Spec, world_size: int, step: int) -> Traffic:
        return ((Payload(Mean, spec.size, spec.dtype),),)


def test_where_and_when() -> None:
    SEEN.clear()
    simulator = Simulator(Watching(), 2, learning_rate=0.5)
    gradients = NUMPY.arrays(normal_gradients(2, 0, {"w": (2, 3)}))
    simulator.step(gradients)
    simulator.learning_rate = 0.25
    simulator.step(gradients)
    told = [(c.name, c.step, c.rank, c.world_size, c.learning_rate, c.spec) for c in SEEN]
    spec = Spec((2, 3))
    assert told == [("w", step, rank, 2, rate, spec) for step, rate in ((0, 0.5), (1, 0.25)) for rank in (0, 1)]


def test_only_a_wrapper_with_a_memory_asks_for_the_rest() -> None:
    for compressor, asked, dtype in ((Watching(), False, "float16"), (ErrorFeedback(Watching()), True, "float32")):
        SEEN.clear()
        Simulator(compressor, 1, allow_larger=True).step(NUMPY.arrays(normal_gradients(1, 0, {"w": (2,)}), "float16"))
        assert [(c.feedback, c.spec.dtype) for c in SEEN] == [(asked, dtype)]
