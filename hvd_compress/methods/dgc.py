"""DGC: deep gradient compression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ..codecs import TopK
from ..codecs.top_k import Selection
from ..contract import Operator, check_at_least
from ..feedback import MomentumCorrection
from ..operators import AllGather, LocalClip, Schedule
from .method import Method

_WARMUP_RATIOS = (0.25, 0.0625, 0.015625, 0.004)


@final
@dataclass(frozen=True, repr=False)
class DGC(Method):
    """Local top-k of accumulated momentum, with momentum factor masking, local clipping and a sparsity warm-up.

    g <- clipped; u = mu u + g; v = v + u; send the k = ceil(ratio d) largest |v| by allgather; u, v = 0 where sent.

    Momentum is inside: the optimizer must have none. Bytes a rank sends grow with W.

    Args:
        ratio: share of elements that each rank sends, 0 < ratio <= 1.
        momentum: mu, 0 <= mu < 1.
        nesterov: u = mu (u + g); v = v + u + g.
        clip: l2 norm c > 0 that the gradient of each tensor is held to, c/sqrt(W) on each rank, before anything else;
            None for no clipping.
        warmup_steps: number of first steps at a higher share: 0.25, 0.0625, 0.015625, 0.004 (sparsity 75, 93.75,
            98.44, 99.6 %), those of them above `ratio`, for equal times; u and v go on.
        selection: "exact", "chunked", or "sampled" as in the paper, see `TopK`.
        min_size: tensors with fewer elements, and those with fewer than 2 dimensions, travel dense, with the same
            momentum and clipping.

    Raises:
        ConfigurationError: a setting is out of range.

    Source: Lin et al. 2018 (arXiv:1712.01887), Algorithm 4 and section 3.
    """

    ratio: float = 0.001
    momentum: float = 0.9
    nesterov: bool = False
    clip: float | None = None
    warmup_steps: int = 0
    selection: Selection = "exact"
    min_size: int = 1024

    def __post_init__(self) -> None:
        check_at_least(self, "warmup_steps", self.warmup_steps, 0)
        self.expression()

    def expression(self) -> Operator:
        above = [ratio for ratio in _WARMUP_RATIOS if ratio > self.ratio]
        # Of phases that are shorter than a step the last one counts.
        phases = {i * self.warmup_steps // len(above): ratio for i, ratio in enumerate(above)}
        phases[self.warmup_steps if above else 0] = self.ratio
        inner: Operator = Schedule(tuple((start, self._top_k(ratio)) for start, ratio in phases.items()))
        if len(phases) == 1:
            inner = self._top_k(self.ratio)
        operator = MomentumCorrection(inner, self.momentum, self.nesterov)
        return operator if self.clip is None else LocalClip(operator, self.clip)

    def _top_k(self, ratio: float) -> Operator:
        return AllGather(TopK(ratio, self.selection, self.min_size))
