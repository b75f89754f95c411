"""ScaleCom: cyclic local top-k with a low-pass filter in the residual."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, final, get_args

from ..contract import Operator, check_at_least, check_choice, check_fraction
from ..errors import ConfigurationError
from ..feedback import ErrorFeedback
from ..operators import CyclicTopK, Warmup
from ..operators.cyclic_top_k import Selection
from ..policies import ByName
from .method import Method

Filter = Literal["low-pass", "forgetting", "literal"]


@final
@dataclass(frozen=True, repr=False)
class ScaleCom(Method):
    """One element of every chunk, chosen by ranks in turn, and a filtered residual.

    p_i = g_i + a h_i; I = the largest |p_l| of each chunk, for its shard's leader l; sent_i = p_i on I, else 0;
    update = mean_i sent_i; h_i <- b h_i + (g_i - sent_i), with (a, b) by `filter`:

    | filter       | (a, b)           |                                                                          |
    |--------------|------------------|--------------------------------------------------------------------------|
    | "low-pass"   | (beta, 1)        | the paper's h, times 1/beta: h <- (1 - beta) h + beta (p - sent)          |
    | "forgetting" | (1, 1 - beta)    | part of what is owed is dropped at each step; for comparison             |
    | "literal"    | (beta, 1 - beta) | both, for comparison                                                     |

    Two collectives a step, whose volume does not grow with the number of workers: d/chunk positions, d/chunk values.

    Args:
        chunk: elements of a chunk, of which one is sent, >= 1; 1 travels dense.
        beta: of the filter, above 0 and up to 1; with "low-pass" 1 is plain error feedback, and 0.1 to 0.3 is for
            large batches and high learning rates.
        filter: what becomes of the residual.
        selection: "chunked", or "exact" (top k of each shard); see `CyclicTopK`.
        start_after: number of first steps that travel dense.
        min_size: tensors with fewer elements travel dense.
        chunks: (pattern, chunk) pairs, or a mapping of these, for parameters with chunks of another size: patterns of
            their names as for files; the first that matches counts. Chunks of 1 travel dense.

    Raises:
        ConfigurationError: a setting is out of range.

    Source: Chen et al. 2020 (arXiv:2104.11125), Algorithm 1 and equation 5.
    """

    chunk: int = 64
    beta: float = 1.0
    filter: Filter = "low-pass"
    selection: Selection = "chunked"
    start_after: int = 0
    min_size: int = 1024
    chunks: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        check_fraction(self, "beta", self.beta)
        check_choice(self, "filter", self.filter, get_args(Filter))
        if self.filter != "low-pass" and self.beta == 1:
            raise ConfigurationError(
                f"ScaleCom(filter={self.filter!r}, beta={self.beta!r}): this filter keeps 1 - beta of the memory, "
                "which would be nothing; give a beta below 1, such as 0.1."
            )
        check_at_least(self, "start_after", self.start_after, 0)
        given = self.chunks.items() if isinstance(self.chunks, Mapping) else self.chunks
        try:
            object.__setattr__(self, "chunks", tuple((pattern, chunk) for pattern, chunk in given))
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                f"ScaleCom(chunks={self.chunks!r}): chunks must be (pattern, chunk) pairs, as in (('*conv1*', 1),)."
            ) from error
        self.expression()

    def expression(self) -> Operator:
        chosen: Operator = self._top_k(self.chunk)
        if self.chunks:
            chosen = ByName(tuple((pattern, self._top_k(chunk)) for pattern, chunk in self.chunks), chosen)
        operator = ErrorFeedback(chosen, *self._weights())
        return Warmup(self.start_after, operator) if self.start_after else operator

    def _top_k(self, chunk: int) -> CyclicTopK:
        return CyclicTopK(chunk, self.selection, self.min_size)

    def _weights(self) -> tuple[float, float]:
        """Return the weights of the memory in what is compressed, and of what is kept of it."""
        if self.filter == "forgetting":
            return 1.0, 1.0 - self.beta
        return self.beta, 1.0 if self.filter == "low-pass" else 1.0 - self.beta
