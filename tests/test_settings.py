"""A setting that cannot be honoured is refused where it is made, in one sentence that names it and its value."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from cases import NUMPY, normal_gradients

from hvd_compress import (
    DGC,
    AllReduce,
    AlternatingLowRank,
    BestLowRank,
    Cast,
    CompressionError,
    ConfigurationError,
    DistEFSGDM,
    ErrorFeedback,
    HorovodCompressor,
    Identity,
    LocalWeightDecay,
    LowRank,
    Momentum,
    MomentumCorrection,
    PowerSGD,
    Simulator,
    TwoWay,
    Warmup,
)

FACTORING = (LowRank, AlternatingLowRank, BestLowRank, PowerSGD)
WRONG_COUNTS = (0, -1, True, 1.5, "4", None, math.nan)
WRONG_NUMBERS = (math.nan, math.inf, -math.inf, "1", None, True)

WRONG: list[tuple[Any, str, Any]] = [
    *((kind, "rank", value) for kind in FACTORING for value in WRONG_COUNTS),
    *((kind, "min_saving", value) for kind in FACTORING for value in (*WRONG_NUMBERS, -0.1)),
    *((kind, "seed", value) for kind in (LowRank, AlternatingLowRank, PowerSGD) for value in (-1, 0.5, None)),
    *((kind, "power_iterations", value) for kind in (LowRank, PowerSGD) for value in WRONG_COUNTS),
    *((PowerSGD, "start_after", value) for value in (-1, True, 1.5, None)),
    *((Cast, "dtype", value) for value in ("float32", "fp16", "", None, 16)),
    *((ErrorFeedback, weight, value) for weight in "ab" for value in WRONG_NUMBERS),
    *((Warmup, "steps", value) for value in (-1, True, 2.5, None, math.inf)),
]


def make(kind: Any, name: str, value: Any) -> Any:
    needed = {ErrorFeedback: {"inner": Cast()}, Warmup: {"then": Cast()}}.get(kind, {})
    return kind(**{**needed, name: value})


@pytest.mark.parametrize(("kind", "name", "value"), WRONG, ids=lambda x: getattr(x, "__name__", repr(x)))
def test_a_wrong_value_is_named(kind: Any, name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as raised:
        make(kind, name, value)
    message = str(raised.value)
    assert f"{name}={value!r}" in message
    assert message.endswith(".")
    assert "\n" not in message
    assert len(re.findall(r"[.?!](?:\s|$)", message)) == 1, "one sentence"
    assert isinstance(raised.value, (CompressionError, ValueError))


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        *((kind, "rank", 1) for kind in FACTORING),
        *((kind, "min_saving", value) for kind in FACTORING for value in (0, 0.0, 2)),
        (PowerSGD, "start_after", 0),
        (Warmup, "steps", 0),
        (ErrorFeedback, "a", 0),
        (ErrorFeedback, "b", -0.5),
    ],
    ids=lambda x: getattr(x, "__name__", repr(x)),
)
def test_the_edge_of_the_range_is_in_it(kind: Any, name: str, value: Any) -> None:
    assert getattr(make(kind, name, value), name) == value


@pytest.mark.parametrize("more", [{"warm_start": False}, {"power_iterations": 2}])
def test_alternating_is_refused_with_what_it_cannot_do(more: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"alternate=True.*set alternate=False"):
        PowerSGD(alternate=True, **more)


@pytest.mark.parametrize("wrong", [None, "powersgd", PowerSGD, 4], ids=repr)
@pytest.mark.parametrize("wrapper", [ErrorFeedback, lambda inner: Warmup(2, inner)], ids=["ErrorFeedback", "Warmup"])
def test_what_is_wrapped_must_be_a_compressor(wrapper: Any, wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(repr(wrong))):
        wrapper(wrong)


@pytest.mark.parametrize("wrong", [None, "fp16", Cast, LowRank()], ids=repr)
@pytest.mark.parametrize("carrier", [AllReduce, TwoWay])
def test_what_is_carried_must_be_a_codec(carrier: Any, wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(repr(wrong))):
        carrier(wrong)


def test_a_codec_that_cannot_be_summed_is_told_how_to_travel() -> None:
    expected = re.escape("use TwoWay(Cast(dtype='bfloat16')) instead")
    with pytest.raises(ConfigurationError, match=expected):
        Simulator(AllReduce(Cast("bfloat16")), 2).step(NUMPY.arrays(normal_gradients(2)))


@pytest.mark.parametrize("path", ["", "nowhere", "nowhere:At", "math:sqrt", "cases:Row", "cases:", ":HalfPrecision"])
def test_a_path_that_leads_to_no_compressor_is_refused(path: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(repr(path))):
        HorovodCompressor(path)


@pytest.mark.parametrize("world_size", [0, -1])
def test_a_world_of_nobody_is_refused(world_size: int) -> None:
    with pytest.raises(ConfigurationError, match=f"world_size={world_size}"):
        Simulator(Identity(), world_size)


def test_a_wrong_number_of_gradients_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="3 gradients were given for 2 workers"):
        Simulator(Identity(), 2).step(NUMPY.arrays(normal_gradients(3)))


@pytest.mark.parametrize("memory", [ErrorFeedback, MomentumCorrection], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("inner", [Momentum(Cast()), LocalWeightDecay(Cast(), 0.1), DGC(), DistEFSGDM()], ids=repr)
def test_momentum_and_weight_decay_go_around_a_memory(memory: Any, inner: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"put {memory.__name__} inside of them"):
        memory(inner)
