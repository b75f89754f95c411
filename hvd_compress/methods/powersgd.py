"""PowerSGD: low-rank gradient compression with error feedback."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ..contract import Operator, check_at_least
from ..errors import ConfigurationError
from ..feedback import ErrorFeedback
from ..operators import AlternatingLowRank, LowRank, Warmup
from .method import Method


@final
@dataclass(frozen=True, repr=False)
class PowerSGD(Method):
    """Rank-r power iteration with warm start and error feedback; vectors and small matrices travel dense.

    p = g + e; P = orth(mean(p Q)); Q = mean(p^T P); update = P Q^T; e = p - P P^T p.

    Two allreduces a step of r (n + m) elements per n x m matrix, whatever the number of workers. The paper's own
    momentum is not included: it has gain (2 - mu)/(1 - mu) where torch's Nesterov has 1/(1 - mu). Weight decay and
    momentum stay in your optimizer, after decompression.

    Args:
        rank: r >= 1; 2 suffices for CNNs, 4 for language models. min(n, m, r) is used.
        warm_start: start from the Q of the step before.
        resample: without warm start, draw Q anew at every step instead of using the first one always.
        power_iterations: products with M M^T a step, >= 1; each costs two more allreduces.
        error_feedback: keep what was not sent and add it to the next gradient.
        alternate: send P at even steps and Q at odd ones: one allreduce a step (arXiv:2008.01425, Algorithm 2).
        min_saving: compress a matrix only where (n + m) r min_saving < n m; 0 compresses every matrix.
        start_after: number of first steps that travel dense.
        seed: of Q, equal on all ranks.

    Raises:
        ConfigurationError: a setting is out of range, or `alternate` is combined with what it cannot do.

    Source: Vogels, Karimireddy, Jaggi 2019 (arXiv:1905.13727), Algorithms 1 and 2.
    """

    rank: int = 4
    warm_start: bool = True
    resample: bool = True
    power_iterations: int = 1
    error_feedback: bool = True
    alternate: bool = False
    min_saving: float = 1.0
    start_after: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least(self, "rank", self.rank, 1)
        check_at_least(self, "start_after", self.start_after, 0)
        if self.alternate and (not self.warm_start or self.power_iterations != 1):
            raise ConfigurationError(
                "PowerSGD(alternate=True) keeps both factors and sends one a step; leave warm_start=True and "
                "power_iterations=1, or set alternate=False."
            )
        self.expression()

    def expression(self) -> Operator:
        operator: Operator
        if self.alternate:
            operator = AlternatingLowRank(self.rank, self.min_saving, self.seed)
        else:
            operator = LowRank(
                self.rank, self.warm_start, self.resample, self.power_iterations, self.min_saving, self.seed
            )
        if self.error_feedback:
            operator = ErrorFeedback(operator)
        return Warmup(self.start_after, operator) if self.start_after else operator
