"""Every codec is a compressor of Horovod's own API; every operator says what to import instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from cases import TENSORFLOW, Library, assert_close, bits, dtype_of, normal_gradients, public_compressors, wide

import hvd_compress
from hvd_compress import (
    QSGD,
    BlockSign,
    Cast,
    Codec,
    ErrorFeedback,
    Identity,
    Natural,
    OneBit,
    Operator,
    PowerSGD,
    Simulator,
    Spec,
    Spectral,
    StockOptimizerError,
    TernGrad,
    TopK,
)
from hvd_compress.contract import Key
from hvd_compress.ops import ArrayOps

SHAPES = [(), (0,), (1,), (7,), (5, 3), (2, 3, 3, 1)]


@dataclass(frozen=True, repr=False)
class TwoHalves(Codec):
    """A codec of several parts, of types and lengths that do not fit together: one float64, n int16, n bytes."""

    def encode(self, array: Any, ops: ArrayOps, key: Key = ()) -> tuple[Any, ...]:
        flat = ops.flatten(array)
        exact = ops.to_bfloat16_bits(flat)
        marks = ops.zeros(ops.shape(flat), "uint8")
        return ops.zeros((1,), "float64"), marks, exact

    def decode(self, parts: tuple[Any, ...], spec: Spec, ops: ArrayOps) -> Any:
        assert ops.shape(parts[0]) == (1,)
        assert [ops.dtype(part) for part in parts] == ["float64", "uint8", "int16"]
        return ops.reshape(ops.from_bfloat16_bits(parts[2], spec.dtype), spec.shape)

    def payload(self, spec: Spec) -> tuple[tuple[int, str], ...]:
        return ((1, "float64"), (spec.size, "uint8"), (spec.size, "int16"))

    def summable(self, spec: Spec) -> bool:
        return False


CODECS = [Identity(), Cast("float16"), Cast("bfloat16"), TwoHalves()]


@pytest.mark.parametrize("codec", CODECS, ids=repr)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_there_and_back(library: Library, codec: Codec, shape: tuple[int, ...]) -> None:
    """One tensor to send, a context to keep; back come shape and element type, and the numbers up to rounding."""
    values = np.random.default_rng(0).standard_normal(shape)
    for dtype in ("float32", "float64"):
        tensor = library.array(values, dtype)
        before = bits(tensor)
        payload, ctx = codec.compress(tensor)
        assert isinstance(payload, type(tensor))
        assert bits(tensor) == before
        back = codec.decompress(payload, ctx)
        assert (tuple(back.shape), dtype_of(back), type(back)) == (shape, dtype, type(tensor))
        assert_close(back, values, 2.0**-8)


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_the_payload_is_as_large_as_declared(library: Library, codec: Codec) -> None:
    spec = Spec((5, 3))
    payload, _ = codec.compress(library.array(np.ones(spec.shape)))
    declared = codec.payload(spec)
    nbytes = sum(count * np.dtype(dtype).itemsize for count, dtype in declared)
    assert len(bits(payload)) == nbytes
    assert dtype_of(payload) == (declared[0][1] if len(declared) == 1 else "uint8")


@pytest.mark.parametrize("kind", [Identity, Cast, TwoHalves])
def test_on_the_class_it_has_default_settings(library: Library, kind: type[Codec]) -> None:
    """Horovod hands out its compressors as classes: `compression=hvd.Compression.fp16`."""
    tensor = library.array(np.linspace(0, 1, 9))
    payload, ctx = kind.compress(tensor)
    expected, _ = kind().compress(tensor)
    assert bits(payload) == bits(expected)
    assert_close(kind.decompress(payload, ctx), np.linspace(0, 1, 9), 2.0**-8)


def test_decompress_takes_the_settings_from_the_context(library: Library) -> None:
    payload, ctx = Cast("bfloat16").compress(library.array(np.ones(3)))
    assert dtype_of(payload) == "int16"
    assert_close(Cast.decompress(payload, ctx), np.ones(3), 0.0)


def test_two_tensors_under_way_at_once(library: Library) -> None:
    tensors = [library.array(np.full(shape, float(i))) for i, shape in enumerate([(2,), (3, 3), ()])]
    sent = [Cast.compress(tensor) for tensor in tensors]
    for tensor, (payload, ctx) in reversed(list(zip(tensors, sent, strict=True))):
        assert bits(Cast.decompress(payload, ctx)) == bits(tensor)


def test_a_codec_of_several_parts_travels(library: Library, world_size: int) -> None:
    simulator = Simulator(ErrorFeedback(TwoHalves()), world_size, allow_larger=True)
    for step in range(2):
        gradients = normal_gradients(world_size, step, {"w": (5, 3)})
        mean = simulator.step(library.arrays(gradients))[0]["w"]
        assert_close(mean, np.mean([own["w"] for own in gradients], axis=0), 2.0**-6, scale=4.0)


OPERATORS = [kind for kind in public_compressors() if issubclass(kind, Operator)]


@pytest.mark.parametrize("kind", OPERATORS, ids=lambda kind: kind.__name__)
def test_an_operator_in_horovods_own_optimizer_says_what_to_import(kind: type[Operator]) -> None:
    for call in (lambda: kind.compress(np.ones(3)), lambda: kind.decompress(np.ones(3), None)):
        with pytest.raises(StockOptimizerError, match=r"`import hvd_compress\.torch as hvd`"):
            call()


def test_an_operators_instance_says_it_too() -> None:
    for call in (lambda: PowerSGD().compress(np.ones(3)), lambda: PowerSGD().decompress(np.ones(3), None)):
        with pytest.raises(StockOptimizerError, match=r"`import hvd_compress\.torch as hvd`"):
            call()
    assert issubclass(StockOptimizerError, hvd_compress.CompressionError)


def test_what_is_no_array_is_refused() -> None:
    with pytest.raises(hvd_compress.ConfigurationError, match="list is not a supported array"):
        Cast.compress([1.0, 2.0])


ALL_CODECS = [*CODECS, QSGD(7), TernGrad(), Natural(), BlockSign(), OneBit(), TopK(0.2, min_size=0), Spectral(rank=2)]


@pytest.mark.parametrize("codec", ALL_CODECS, ids=repr)
@pytest.mark.parametrize("shape", [(), (7,), (5, 3)], ids=str)
def test_there_and_back_inside_a_graph(codec: Codec, shape: tuple[int, ...]) -> None:
    """Stock `horovod.tensorflow` calls both inside the graph of a training step: as eagerly, with shapes known."""
    tensors = [TENSORFLOW.array(np.random.default_rng(step).standard_normal(shape), "float64") for step in range(2)]

    @tf.function(autograph=False)
    def there_and_back(tensor: Any) -> tuple[Any, Any]:
        payload, ctx = codec.compress(tensor)
        assert payload.shape.is_fully_defined()
        return payload, codec.decompress(payload, ctx)

    for tensor in tensors:
        payload, ctx = codec.compress(tensor)
        found, back = there_and_back(tensor)
        assert (dtype_of(found), tuple(found.shape)) == (dtype_of(payload), tuple(payload.shape))
        assert (dtype_of(back), tuple(back.shape)) == (dtype_of(tensor), shape)
        assert_close(back, wide(codec.decompress(payload, ctx)), 1e-12)
    assert there_and_back.experimental_get_tracing_count() == 1
