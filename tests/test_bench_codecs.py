"""Codecs by themselves: both ways are run and told apart, and their numbers are the codec's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import pytest

from hvd_compress import QSGD, BlockSign, Codec, ConfigurationError, Spec, TopK
from hvd_compress.bench.micro import MicroSettings, measure
from hvd_compress.bench.micro.codec_subject import CodecSubject, codec_of
from hvd_compress.bench.micro.measure import matrix_shape
from hvd_compress.bench.micro.world import NumPyWorld
from hvd_compress.ops import ops_of

ROWS = {
    "codec:blocksign": BlockSign(),
    "codec:qsgd": QSGD(),
    "codec:qsgd:levels=15": QSGD(levels=15),
    "codec:topk:selection=chunked": TopK(selection="chunked"),
}


def test_rows_name_codecs_and_what_carries_one() -> None:
    assert {row: codec_of(row) for row in ROWS} == ROWS
    assert codec_of("qsgd") is None and codec_of("blocksign") is None
    with pytest.raises(ConfigurationError, match="PowerSGD is no codec"):
        codec_of("codec:powersgd")
    with pytest.raises(ConfigurationError, match="no setting 'rank'"):
        codec_of("codec:qsgd:rank=2")


def test_points_are_those_of_the_codec() -> None:
    settings = MicroSettings((*ROWS, "efsignsgd"), (2**14, 2**16), library="numpy", repeats=3, warmup=1)
    points = [point for point in measure(settings, NumPyWorld()) if point.compressor in ROWS]
    assert len(points) == len(ROWS) * len(settings.sizes)
    for point in points:
        codec, spec = ROWS[point.compressor], Spec(matrix_shape(point.nbytes // 4))
        assert point.encode is not None and point.decode is not None and point.collective is None
        assert min(point.encode, point.decode) > 0 and max(point.encode, point.decode) <= point.slowest
        assert point.copies == pytest.approx(point.total / point.copy) and point.state_bytes == 0
        gradient = np.random.default_rng([0, 0]).standard_normal(spec.shape, dtype=np.float32)
        ops = ops_of(gradient)
        parts = codec.encode(gradient, ops, ("gradient", 0, 0))
        assert point.wire_bytes == sum(part.nbytes for part in parts)
        assert point.ratio == pytest.approx(gradient.nbytes / point.wire_bytes)
        lost = codec.decode(parts, spec, ops) - gradient
        # Of the codec, with no residual and no mean: what it loses of this very gradient.
        assert point.relative_error == pytest.approx(np.linalg.norm(lost) / np.linalg.norm(gradient), rel=1e-5)


@final
@dataclass(frozen=True, repr=False)
class Recorder(Codec):
    """Says what is asked of it, and spoils what it is handed."""

    calls: list[str] = field(default_factory=list)

    def encode(self, array: Any, ops: Any, key: Any = ()) -> tuple[Any, ...]:
        self.calls.append("encode")
        return (array,)

    def decode(self, parts: tuple[Any, ...], spec: Any, ops: Any) -> Any:
        self.calls.append("decode")
        parts[0][...] += 1.0
        return parts[0]

    def payload(self, spec: Any) -> tuple[tuple[int, str], ...]:
        return ((spec.size, spec.dtype),)

    def summable(self, spec: Any) -> bool:
        return False


def test_every_exchange_encodes_and_decodes_once_and_leaves_the_gradient() -> None:
    codec, gradient = Recorder(), np.zeros((2, 3), np.float32)
    subject = CodecSubject(codec, gradient, NumPyWorld())
    for _ in range(2):
        decoded, sample = subject.exchange()
        assert (decoded == 1.0).all() and (gradient == 0.0).all()
        assert sample.encode is not None and sample.decode is not None
        assert sample.total == sample.encode + sample.decode
    assert codec.calls == ["encode", "decode"] * 2
