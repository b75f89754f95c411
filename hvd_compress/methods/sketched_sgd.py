"""SketchedSGD: momentum and feedback in a vector that is sent by a count sketch."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import final

from ..contract import Operator, check_fraction
from ..feedback import MomentumCorrection
from ..operators import CountSketch, Half
from ..operators.sketch import Hashing
from .method import Method

# Above this share of coordinates masked at every step, momentum is all but gone.
_MOSTLY_MASKED = 0.5


@final
@dataclass(frozen=True, repr=False)
class SketchedSGD(Method):
    """Momentum correction around a count sketch of the whole model; biases and small tensors travel dense.

    u = mu u + g; v = v + u; candidates = the P k largest estimates in the mean table of v; update = the k largest exact
    means of v at the candidates; u, v = 0 where applied. Dense tensors keep their momentum u.

    Two allreduces a step, of r c and P k numbers, whatever the number of workers. The learning rate stays outside;
    the optimizer must have no momentum of its own, and Nesterov momentum is not offered.

    Args:
        ratio: k / d, above 0 up to 1: coordinates applied a step.
        k: coordinates applied a step, >= 1, instead of a ratio.
        rows: r, odd; 3 to 5 in the paper.
        columns: c >= 1; 2 k if None.
        candidates: P >= 1: coordinates asked for exactly, for each one that is applied.
        momentum: mu, 0 <= mu < 1.
        masking: zero u where applied. As k goes to d it leaves no momentum at all: a warning says so.
        second_round: apply exact values; False: the estimates in the table, in one round.
        hashing: "rotation" or "polynomial"; see `CountSketch`.
        half: float16 on every wire.
        min_size: tensors with fewer elements travel dense.
        seed: of the hash functions, equal on all ranks.

    Raises:
        ConfigurationError: a setting is out of range.

    Source: Ivkin et al. 2019 (arXiv:1903.04488), its empirical algorithm.
    """

    ratio: float = 0.01
    k: int | None = None
    rows: int = 5
    columns: int | None = None
    candidates: int = 8
    momentum: float = 0.9
    masking: bool = True
    second_round: bool = True
    hashing: Hashing = "rotation"
    half: bool = False
    min_size: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        check_fraction(self, "momentum", self.momentum, zero=True, one=False)
        self.expression()
        if self.masking and self.momentum and self.k is None and self.ratio > _MOSTLY_MASKED:
            warnings.warn(
                f"{self!r} sets the momentum of {self.ratio:.0%} of the coordinates to zero at every step, so that "
                "little of it is left; use a smaller ratio, masking=False or momentum=0.",
                stacklevel=3,
            )

    def expression(self) -> Operator:
        operator: Operator = CountSketch(
            ratio=self.ratio,
            k=self.k,
            rows=self.rows,
            columns=self.columns,
            candidates=self.candidates,
            second_round=self.second_round,
            hashing=self.hashing,
            min_size=self.min_size,
            seed=self.seed,
        )
        return MomentumCorrection(Half(operator) if self.half else operator, self.momentum, masking=self.masking)
