"""ByDimension: a compressor for vectors, another for matrices, another for convolution kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from ..contract import Spec, check_at_least
from .policy import Policy


@final
@dataclass(frozen=True, repr=False)
class ByDimension(Policy):
    """Choose by number of dimensions: 0 scalars, 1 biases and norms, 2 matrices, 4 convolution kernels of images.

    Args:
        rules: (number of dimensions, operator or codec) pairs, or a mapping of these.
        otherwise: operator or codec for parameters of any other number of dimensions.

    Raises:
        ConfigurationError: a number of dimensions is no whole number >= 0.
    """

    def check_condition(self, condition: Any) -> None:
        check_at_least(self, "rules", condition, 0)

    def meets(self, condition: Any, name: str, spec: Spec) -> bool:
        return len(spec.shape) == int(condition)
