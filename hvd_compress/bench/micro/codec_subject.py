"""Codecs by themselves: encoding and decoding, without memory and without anything that travels."""

from __future__ import annotations

from typing import final

from ...contract import Array, Codec, Spec
from ...errors import ConfigurationError
from ...ops import ops_of
from ...registry import resolve
from .subject import Sample, Subject
from .world import World

PREFIX = "codec:"


def codec_of(row: str) -> Codec | None:
    """Return the codec that a row measures by itself; None where it measures a whole exchange.

    Args:
        row: a name of `registry.names()` with settings if any; after "codec:" one of a codec, or of what carries one.

    Raises:
        ConfigurationError: what is named after "codec:" has no codec.
    """
    if not row.startswith(PREFIX):
        return None
    compressor = resolve(row.removeprefix(PREFIX))
    codec = compressor if isinstance(compressor, Codec) else getattr(compressor, "codec", None)
    if not isinstance(codec, Codec):
        raise ConfigurationError(
            f"{row!r}: {type(compressor).__name__} is no codec and carries none; leave out {PREFIX!r}, or name one "
            "such as codec:blocksign, codec:qsgd or codec:topk."
        )
    return codec


@final
class CodecSubject(Subject):
    """One codec, which writes this rank's gradient and reads it again.

    Args:
        codec: any.
        gradient: this rank's; left as it is.
        world: this process among the others.
    """

    local = True

    def __init__(self, codec: Codec, gradient: Array, world: World) -> None:
        self._gradient = gradient
        self._world = world
        self._ops = ops = ops_of(gradient)
        spec = Spec(ops.shape(gradient), ops.dtype(gradient))
        key = ("gradient", 0, world.rank)
        self._encode = world.program(lambda array: codec.encode(codec.arranged(array, spec, ops), ops, key))
        self._decode = world.program(lambda *parts: codec.decode(parts, spec, ops))

    def exchange(self) -> tuple[Array, Sample]:
        # Parts may share memory with what was encoded, and are donated to decoding.
        own, clock = self._ops.copy(self._gradient), self._world.clock
        self._world.gather(None)
        began = clock.mark()
        parts = self._encode(own)
        between = clock.mark()
        decoded = self._decode(*parts)
        ended = clock.mark()
        encode, decode = clock.seconds(began, between), clock.seconds(between, ended)
        return decoded, Sample(encode + decode, encode, None, decode)
