"""dist-EF-SGD: two-way compression with feedback on both sides, momentum before it, residuals that follow the step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, final

from ..codecs import BlockSign
from ..contract import Codec, Operator, check_codec
from ..errors import ConfigurationError
from ..feedback import ErrorFeedback, LocalWeightDecay, Momentum, StepSizeScaling
from ..operators import Joined, TwoWay
from .method import Method

_ONE_SCALE = BlockSign()
# The scale of a whole layer is far off where a few elements are much larger than the others; one for every 256 elements
# costs one bit more for every eight. Tensors below 4 KB are a small share of the bytes, and would be most of the work.
_SMALL_BLOCKS = BlockSign(block=256, min_size=1024)


@dataclass(frozen=True, repr=False)
class _DistEF(Method):
    """What the four variants share: settings, and the expression that each of them is a case of."""

    codec: Codec = _ONE_SCALE
    weight_decay: float = 0.0
    follow_step_size: bool = True
    cap: float = math.inf

    def __post_init__(self) -> None:
        check_codec(self, self.codec)
        if self.cap != math.inf and not self.follow_step_size:
            raise ConfigurationError(
                f"{type(self).__name__}(follow_step_size=False, cap={self.cap!r}): without ratios of learning rates "
                "there is nothing to cap; leave one of the two out."
            )
        self.expression()

    def _expression(self, momentum: float = 0.0, block: float | Literal["tensor"] = math.inf) -> Operator:
        """Return the method with this momentum, and with every tensor a block, or so many megabytes of them."""
        operator: Operator = ErrorFeedback(TwoWay(self.codec, server_feedback=True))
        if momentum != 0:
            operator = Momentum(operator, momentum)
        if self.follow_step_size:
            operator = StepSizeScaling(operator, self.cap)
        if self.weight_decay != 0:
            operator = LocalWeightDecay(operator, self.weight_decay, momentum)
        if block == "tensor":
            return operator
        if isinstance(block, bool) or not isinstance(block, (int, float)) or not block > 0:
            raise ConfigurationError(
                f"{type(self).__name__}(block={block!r}): block must be 'tensor', or a number of megabytes above 0."
            )
        return Joined(operator, block)


@final
@dataclass(frozen=True, repr=False)
class DistEFSGD(_DistEF):
    """Compression on the way to a sharded server and back, with feedback on both sides; one block for the whole model.

    p_i = g_i + r e_i; e_i <- p_i - C(p_i); p = mean C(p_i) + r E; update = C(p); E <- p - update, with r the ratio of
    the last learning rate to this one, 0 at the first step. Every rank serves one shard of the model, and a scale or
    selection is per shard. With `BlockSign`, 2 (W-1)/W d/8 bytes a worker: 1/32 of float32, whatever W is.

    Args:
        codec: C, a contraction: `BlockSign`, `TopK`; `Scaled(QSGD(...), 1/w)` for an unbiased one.
        weight_decay: lambda >= 0, applied by each worker after decompression; the optimizer must have none.
        follow_step_size: multiply e_i and E by r; False leaves them as they are.
        cap: largest r, > 0; inf for none. A tenfold drop of the learning rate makes r 10 once.

    Raises:
        ConfigurationError: a setting is out of range, or cap is given without follow_step_size.

    Source: Zheng, Huang, Kwok 2019 (arXiv:1905.10936), Algorithm 2.
    """

    def expression(self) -> Operator:
        return self._expression()


@final
@dataclass(frozen=True, repr=False)
class DistEFSGDM(_DistEF):
    """`DistEFSGD` with Nesterov momentum before compression: m_i = mu m_i + g_i; p_i = mu m_i + g_i + r e_i.

    Args:
        momentum: mu, 0 <= mu < 1, also of the weight decay; the optimizer must have none. The other settings are
            those of `DistEFSGD`.

    Raises:
        ConfigurationError: a setting is out of range, or cap is given without follow_step_size.

    Source: Zheng, Huang, Kwok 2019 (arXiv:1905.10936), Algorithm 3 with one block.
    """

    momentum: float = 0.9

    def expression(self) -> Operator:
        return self._expression(self.momentum)


@final
@dataclass(frozen=True, repr=False)
class DistEFBlockSGD(_DistEF):
    """`DistEFSGD` by blocks: each has a scale of its own.

    Args:
        codec: C; `BlockSign()` has one scale a block and shard, the default one for every 256 elements of them, and
            leaves tensors of fewer than 1024 elements dense, with the same momentum if any.
        block: "tensor", or the megabytes (10^6 bytes) of tensors that are joined, > 0; 50 in the authors' code for
            ImageNet. The other settings are those of `DistEFSGD`.

    Raises:
        ConfigurationError: a setting is out of range, or cap is given without follow_step_size.

    Source: Zheng, Huang, Kwok 2019 (arXiv:1905.10936), Algorithm 3 without momentum.
    """

    codec: Codec = _SMALL_BLOCKS
    block: float | Literal["tensor"] = "tensor"

    def expression(self) -> Operator:
        return self._expression(block=self.block)


@final
@dataclass(frozen=True, repr=False)
class DistEFBlockSGDM(_DistEF):
    """`DistEFSGDM` by blocks: each has a scale of its own.

    Args:
        codec: C; `BlockSign()` has one scale a block and shard, the default one for every 256 elements of them, and
            leaves tensors of fewer than 1024 elements dense, with the same momentum if any.
        momentum: mu, 0 <= mu < 1, also of the weight decay; the optimizer must have none.
        block: "tensor", or the megabytes (10^6 bytes) of tensors that are joined, > 0; 50 in the authors' code for
            ImageNet. The other settings are those of `DistEFSGD`.

    Raises:
        ConfigurationError: a setting is out of range, or cap is given without follow_step_size.

    Source: Zheng, Huang, Kwok 2019 (arXiv:1905.10936), Algorithm 3.
    """

    codec: Codec = _SMALL_BLOCKS
    momentum: float = 0.9
    block: float | Literal["tensor"] = "tensor"

    def expression(self) -> Operator:
        return self._expression(self.momentum, self.block)
