"""Adasum: what Horovod's own tape can use in place of a compressor."""

from __future__ import annotations

from typing import Any

import horovod.tensorflow as stock

from ..contract import Codec, Spec
from ..errors import ConfigurationError
from ..operators import AllReduce, HorovodCompressor
from .variable_exchange import compressor_of


def for_stock(compression: Any, groups: Any, check_replicas_every: int) -> Any:
    """Return what Horovod's own tape can use in place of a compressor of one summable round.

    Raises:
        ConfigurationError: the compressor is not one summable round, or another argument cannot be honoured.
    """
    if groups:
        raise ConfigurationError(f"groups={groups!r}: Horovod cannot group op=hvd.Adasum; leave groups out.")
    if check_replicas_every:
        raise ConfigurationError("op=hvd.Adasum cannot check replicas; leave check_replicas_every at 0.")
    if compression in (None, stock.Compression.none):
        return stock.Compression.none
    compressor = compressor_of(compression)
    if isinstance(compressor, HorovodCompressor):
        return compression
    codec = compressor.codec if isinstance(compressor, AllReduce) else compressor
    if isinstance(codec, Codec) and codec.summable(Spec((1,))):
        return codec
    raise ConfigurationError(
        f"op=hvd.Adasum combines gradients inside one allreduce, which {compressor!r} is not; use op=hvd.Average."
    )
