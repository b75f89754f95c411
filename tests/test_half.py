"""Half: 16-bit floats on every wire, whatever is inside, and the same bits on every rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pytest
from cases import NUMPY, Library, assert_close, bits, normal_gradients
from hypothesis import given
from hypothesis import strategies as st
from oracles.averaging import average_models

from hvd_compress import (
    AllGather,
    Cast,
    ErrorFeedback,
    Half,
    Identity,
    LowRank,
    Operator,
    PowerSGD,
    Schedule,
    Simulator,
    Spec,
    TwoWay,
    Warmup,
)
from hvd_compress.contract import (
    AllToAll,
    Array,
    Broadcast,
    Context,
    Exchange,
    Exchanged,
    Max,
    Mean,
    Meanwhile,
    Payload,
    State,
    Sum,
    Swap,
    Traffic,
    request,
)

SHAPES = {"matrix": (12, 9), "conv": (6, 4, 3, 3), "bias": (7,), "scalar": ()}
PLAIN = [Identity(), TwoWay(Identity()), AllGather(Identity()), LowRank(rank=2), PowerSGD(rank=2), Warmup(1, LowRank())]


@final
@dataclass(frozen=True, repr=False)
class Everything(Operator):
    """Yields every kind of request and checks what comes back; its mean is the mean gradient."""

    def exchange(self, grad: Array, state: State, context: Context) -> Exchange:
        ops, world, rank = context.ops, context.world_size, context.rank
        flat = ops.flatten(grad)
        rows = ops.stack([flat] * world)
        count = ops.cast(flat * 0.0 + 1.0, "int32")
        answers = yield [
            Mean(flat),
            Sum(flat, donate=False),
            Max(flat),
            request.AllGather(flat),
            AllToAll(rows),
            Broadcast(flat, 0),
            Swap(flat, rank, "self"),
            Sum(count),
            Meanwhile(lambda: "done"),
        ]
        mean, total, _, gathered, exchanged, _, swapped, counted, done = answers
        assert [ops.dtype(x) for x in answers[:7]] == [ops.dtype(flat)] * 7
        assert ops.dtype(counted) == "int32" and bool((counted == world).all()) and done == "done"
        assert ops.shape(gathered) == ops.shape(exchanged) == ops.shape(rows)
        assert bits(swapped) == bits(flat)
        assert_close(total, np.asarray(mean, np.float64) * world, 1e-6)
        return Exchanged(ops.reshape(mean, context.spec.shape), None, state)

    def traffic(self, spec: Spec, world_size: int, step: int) -> Traffic:
        n = spec.size
        kinds = [(Mean, n), (Sum, n), (Max, n), (request.AllGather, n), (AllToAll, n * world_size), (Broadcast, n)]
        payloads = [Payload(kind, count, spec.dtype) for kind, count in [*kinds, (Swap, n)]]
        return ((*payloads, Payload(Sum, n, "int32")),)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 5, 7])
def test_every_kind_of_request(world_size: int) -> None:
    simulator = Simulator(Half(Everything()), world_size, allow_larger=True)
    gradients = normal_gradients(world_size, 0, {"x": (6, 4)})
    means = simulator.step(NUMPY.arrays(gradients))
    assert_close(means[0]["x"], average_models(gradients)["x"], 4 * 2.0**-11, scale=4.0)
    assert all(bits(own["x"]) == bits(means[0]["x"]) for own in means)
    assert simulator.sent_bytes == simulator.plan.wire_bytes(world_size)


def test_what_travels_is_float16_but_for_maxima_swaps_and_integers() -> None:
    (payloads,) = Half(Everything()).traffic(Spec((5,)), 2, 0)
    kinds = [(p.kind, p.dtype) for p in payloads]
    halves = [Sum, Sum, request.AllGather, AllToAll, Broadcast]
    assert sorted(k.__name__ for k, dtype in kinds if dtype == "float16") == sorted(k.__name__ for k in halves)
    assert [(k, dtype) for k, dtype in kinds if dtype != "float16"] == [
        (Max, "float32"),
        (Swap, "float32"),
        (Sum, "int32"),
    ]


@pytest.mark.parametrize("inner", PLAIN, ids=repr)
def test_half_the_bytes_and_nearly_the_same_mean(inner: Any, library: Library, world_size: int) -> None:
    plain, half = (Simulator(c, world_size, allow_larger=True) for c in (inner, Half(inner)))
    for step in range(3):
        gradients = normal_gradients(world_size, step, SHAPES)
        expected = plain.step(library.arrays(gradients))[0]
        found = half.step(library.arrays(gradients))
        for name in SHAPES:
            assert all(bits(own[name]) == bits(found[0][name]) for own in found)
            # A residual of step t is part of what is factored at t + 1, so that rounding is met again.
            assert_close(found[0][name], expected[name], 0.05 if "PowerSGD" in repr(inner) else 8e-3, scale=4.0)
    slack = 3 * 6 * len(SHAPES)  # bytes of a collective are rounded up
    assert abs(2 * half.sent_bytes - plain.sent_bytes) <= slack


@given(st.integers(1, 9), st.floats(1.0, 6e4))
def test_a_sum_does_not_overflow_where_the_mean_is_in_range(world_size: int, size: float) -> None:
    gradients = [{"x": np.full((3,), size, np.float32)} for _ in range(world_size)]
    assert_close(Simulator(Half(Identity()), world_size).step(gradients)[0]["x"], np.full(3, size), 2e-3 * world_size)


def test_what_is_out_of_range_is_seen() -> None:
    gradients = [{"x": np.full((3,), 1e6, np.float32)} for _ in range(2)]
    with np.errstate(over="ignore"):
        assert np.isinf(Simulator(Half(Identity()), 2).step(gradients)[0]["x"]).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_every_element_type(dtype: str) -> None:
    library = Library("torch")
    for inner in (Identity(), Cast("bfloat16"), PowerSGD(rank=2)):
        simulator = Simulator(Half(inner), 2, allow_larger=True)
        gradients = normal_gradients(2, 0, SHAPES)
        means = simulator.step(library.arrays(gradients, dtype))[1]
        assert {str(x.dtype).removeprefix("torch.") for x in means.values()} == {dtype}
        assert_close(means["bias"], average_models(gradients)["bias"], 2e-2)


def test_16_bits_already_are_left_alone() -> None:
    gradients = NUMPY.arrays(normal_gradients(3, 0, SHAPES))
    for inner in (Cast(), TwoWay(Cast("bfloat16"))):
        found, expected = (Simulator(c, 3, allow_larger=True).step(gradients)[0] for c in (Half(inner), inner))
        assert all(bits(found[name]) == bits(expected[name]) for name in SHAPES)


def test_state_is_the_inner_ones_and_feedback_outside_keeps_its_loss() -> None:
    spec = Spec((12, 9))
    assert Half(PowerSGD(rank=2)).leaves(spec, 2) == PowerSGD(rank=2).leaves(spec, 2)
    assert ErrorFeedback(Half(LowRank())).leaves(spec, 2).keys() == {"error", "inner"}
    assert Schedule({0: PowerSGD(), 5: Half(PowerSGD())}).leaves(spec, 2) == PowerSGD().leaves(spec, 2)
