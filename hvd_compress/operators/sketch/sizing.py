"""How large a sketch should be."""

from __future__ import annotations

import math
from typing import NamedTuple

from ...errors import ConfigurationError


class SketchSize(NamedTuple):
    """The size of a count sketch; its fields are settings of `CountSketch`."""

    rows: int
    columns: int
    candidates: int

    def numbers(self, k: int) -> int:
        """Return how many numbers travel for k applied coordinates: r c + P k."""
        return self.rows * self.columns + self.candidates * k


def sketch_size(d: int, k: int) -> SketchSize:
    """Propose rows, columns and candidates to find the k largest of d coordinates.

    columns = 2 k, as an estimate is off by about ||v|| / sqrt(columns); rows odd and about log10(d) / 2 + 1, so that
    the median is far off for few of the d; candidates = 8 for each coordinate applied. `tune_sketch` measures what
    real gradients need.

    Args:
        d: coordinates, >= 1.
        k: coordinates applied a step, 1 .. d.

    Raises:
        ConfigurationError: k is not a whole number from 1 to d.

    Source: Ivkin et al. 2019 (arXiv:1903.04488): r = 3 to 5, P = 8, and c = 2 k in its experiments.
    """
    whole = isinstance(k, int) and isinstance(d, int) and not isinstance(k, bool)
    if not whole or not 1 <= k <= d:
        raise ConfigurationError(f"sketch_size(d={d!r}, k={k!r}): k must be a whole number from 1 to d.")
    half = math.log10(d) / 2.0
    rows = max(3, 2 * round(half / 2.0) + 1)
    return SketchSize(rows, min(2 * k, d), 8)
