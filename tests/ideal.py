"""What a row would apply if it could send everything: what its laws compare with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from cases import Row, inside
from oracles.averaging import average_models
from oracles.momentum import sign

from hvd_compress import Cast, Momentum, MomentumCorrection, Operator, Spec, TwoWay
from hvd_compress.methods import Method
from hvd_compress.operators import Wrapper

Model = dict[str, np.ndarray]


def momentum_of(row: Row) -> Momentum | None:
    """Return the part of the row that has momentum before compression."""
    return next((part for part in inside(row.compressor) if isinstance(part, Momentum)), None)


def correction_of(row: Row) -> MomentumCorrection | None:
    """Return the part of the row that has momentum in its residual."""
    return next((part for part in inside(row.compressor) if isinstance(part, MomentumCorrection)), None)


def two_ways(operator: Operator, spec: Spec) -> list[TwoWay]:
    """Return the servers in an operator whose second encoding loses more than a rounding; codecs may travel so too.

    They see shards: what they scale, pick or round depends on the number of workers.
    """
    if isinstance(operator, TwoWay):
        return [] if isinstance(operator.codec, Cast) or operator.codec.lossless(spec) else [operator]
    if isinstance(operator, Method):
        return two_ways(operator.expression(), spec)
    if isinstance(operator, Wrapper):
        return two_ways(operator.inner_operator(spec), operator.seen(spec))
    return []


class Ideal:
    """The row's update of every step without loss: the average of what every worker's momentum makes of its gradient.

    Momentum before compression is linear; votes are of each worker's own. Momentum correction without loss is plain
    momentum where nothing is masked, and no momentum at all where all that is sent is masked.
    """

    def __init__(self, row: Row) -> None:
        self._votes = row.votes
        self._moves = momentum_of(row)
        self._corrects = correction_of(row)
        self._memories: list[Model] = []

    def step(self, gradients: Sequence[Mapping[str, np.ndarray]]) -> Model:
        """Return the update for every worker's gradients."""
        self._memories = self._memories or [{name: np.zeros(x.shape) for name, x in own.items()} for own in gradients]
        moved = [
            {name: self._moved(memory, name, np.asarray(x, np.float64)) for name, x in own.items()}
            for memory, own in zip(self._memories, gradients, strict=True)
        ]
        if self._votes:
            return {name: sign(np.sum([sign(own[name]) for own in moved], axis=0)) for name in moved[0]}
        return average_models(moved)

    def _moved(self, memory: Model, name: str, g: np.ndarray) -> np.ndarray:
        if self._moves is not None:
            mu = self._moves.momentum
            memory[name] = mu * memory[name] + (1 - self._moves.dampening) * g
            return g + mu * memory[name] if self._moves.nesterov else memory[name]
        if self._corrects is not None:
            mu = self._corrects.momentum
            if self._corrects.nesterov:
                memory[name] = mu * (memory[name] + g)
                return memory[name] + g
            memory[name] = mu * memory[name] + g
            return memory[name]
        return g
