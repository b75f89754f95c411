"""Adasum: what Horovod's own tape can use in place of a compressor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import horovod.tensorflow as stock

from ..contract import Codec, Spec
from ..errors import ConfigurationError
from ..operators import AllReduce, HorovodCompressor
from .variable_exchange import compressor_of


def for_stock(compression: Any, ours: Mapping[str, Any]) -> Any:
    """Return what Horovod's own tape can use in place of a compressor of one summable round.

    Args:
        compression: what the user asked for.
        ours: arguments that Horovod's tape does not have, by name; None where they were not given.

    Raises:
        ConfigurationError: the compressor is not one summable round, or another argument cannot be honoured.
    """
    suited = _suited(compression)
    for name, value in ours.items():
        if value is not None:
            raise ConfigurationError(
                f"{name}={value!r}: op=hvd.Adasum goes to Horovod's own tape, which has no such argument; leave it out."
            )
    return suited


def _suited(compression: Any) -> Any:
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
