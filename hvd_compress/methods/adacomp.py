"""AdaComp: how much is sent follows from the gradients themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ..contract import Operator
from ..operators import AdaptiveBins
from .method import Method


@final
@dataclass(frozen=True, repr=False)
class AdaComp(Method):
    """Adaptive residual compression: in every bin, the elements that g lifts above the bin's largest residual.

    G = R + g; H = G + g; where |H| >= max |G| of the bin send sign(G) s, s the mean of all these maxima;
    R <- G - sent. One allgather a step of 2 bytes a slot and one scale a tensor: see `AdaptiveBins`.

    Args:
        bin_size: elements a bin of matrices, 1 to 32767.
        conv_bin_size: elements a bin of tensors with more than 2 dimensions, such as convolutions.
        slots: elements that a bin can send a step, >= 1; what is beyond waits in the residual.
        min_size: tensors with fewer elements, and those with fewer than 2 dimensions, travel dense.

    Raises:
        ConfigurationError: a setting is out of range.

    Source: Chen et al. 2018 (arXiv:1712.02679), Algorithm 2.
    """

    bin_size: int = 500
    conv_bin_size: int = 50
    slots: int = 4
    min_size: int = 1024

    def __post_init__(self) -> None:
        self.expression()

    def expression(self) -> Operator:
        return AdaptiveBins(self.bin_size, self.conv_bin_size, self.slots, self.min_size)
