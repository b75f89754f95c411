"""Joined: several tensors as one flat gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ..contract import Array, Codec, Context, Exchange, Leaves, Operator, Spec, State, check_compressor
from ..errors import ConfigurationError
from .wrapper import Wrapper


@final
@dataclass(frozen=True, repr=False)
class Joined(Wrapper):
    """Flatten tensors and join them, in order, into units of up to so many megabytes; a larger one stays alone.

    What is inside then works on flat units: one scale, one selection, one residual for all of their tensors. A unit
    starts when the last of its gradients is there, so that large units leave less to overlap with backward. Tensors
    of one unit share the learning rate of the first of them.

    Args:
        inner: the compressor: an operator or codec that makes sense of flat gradients.
        megabytes: of gradients, 10^6 bytes each, > 0; inf joins the whole model, one unit for each element type.

    Raises:
        ConfigurationError: megabytes is not above 0.

    Source: the blocks in the authors' code of Zheng, Huang, Kwok 2019 (arXiv:1905.10936).
    """

    inner: Operator | Codec
    megabytes: float = 50.0

    def __post_init__(self) -> None:
        check_compressor(self, self.inner)
        number = isinstance(self.megabytes, (int, float)) and not isinstance(self.megabytes, bool)
        if not (number and self.megabytes > 0):
            raise ConfigurationError(
                f"Joined(megabytes={self.megabytes!r}): megabytes must be a number above 0, or inf for the whole model."
            )

    @property
    def unit_bytes(self) -> float:
        return 1e6 * self.megabytes

    def leaves(self, spec: Spec, world_size: int) -> Leaves:
        return self.inner_leaves(spec, world_size)

    def exchange(self, grad: Array, state: State, context: Context) -> Exchange:
        return self.inner_operator(context.spec).exchange(grad, state, context)
