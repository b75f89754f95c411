"""Law: what travels is what shapes alone predict: bytes, and round by round the collectives themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from cases import EPSILON, MODEL, Library, Row, normal_gradients, recorded, unit_of
from oracles.collectives import Asked, lockstep

from hvd_compress import Cast, PowerSGD, Simulator, Spec
from hvd_compress.contract import (
    DTYPE_BYTES,
    AllGather,
    AllToAll,
    Broadcast,
    Context,
    Mean,
    Meanwhile,
    Sum,
    initial_state,
    sent_bytes,
)
from hvd_compress.exchange.units import LATE
from hvd_compress.operators import operator_of
from hvd_compress.ops import ops_of


def test_bytes_counted_are_bytes_predicted(row: Row, library: Library, world_size: int) -> None:
    run, counted = recorded(row, library, world_size), 0
    for step, sent in enumerate(run.sent):
        predicted = sum(unit.operator.wire_bytes(unit.spec, world_size, step) for unit in run.plan.units)
        assert predicted == run.plan.wire_bytes(world_size, step)
        assert sent - counted == predicted
        counted = sent
    assert (counted == 0) == (world_size == 1)


@pytest.mark.parametrize("world_size", [1, 3])
def test_collectives_asked_are_those_declared(row: Row, world_size: int) -> None:
    """The kind, count and element type of everything yielded, in order, at every step, kept or not."""
    check_collectives(row, world_size, "float32")


def test_collectives_asked_in_other_element_types(row: Row) -> None:
    check_collectives(row, 2, "float64")
    check_collectives(row, 4, "float16")


def check_collectives(row: Row, world_size: int, dtype: str) -> None:
    library = Library(row.libraries[0])
    ops = ops_of(library.array(0.0))
    for name, shape in MODEL.items():
        unit = unit_of(row, Spec(shape, dtype), world_size)
        operator, spec = unit.operator, unit.spec
        states = [initial_state(operator.leaves(spec, world_size), ops, name) for _ in range(world_size)]
        for step in range(3):
            values = [own[name].reshape(spec.shape) for own in normal_gradients(world_size, step)]
            gradients = [library.array(x, dtype) for x in values]
            zeros, feedback = ops.zeros(spec.shape, dtype), step % 2 == 1
            contexts = [
                Context(ops, spec, name, step, rank, world_size, row.rate, feedback=feedback, parameter=zeros)
                for rank in range(world_size)
            ]
            arguments = zip(gradients, states, contexts, strict=True)
            outcomes, rounds = lockstep([operator.exchange(*own) for own in arguments])
            states = [outcome.state for outcome in outcomes]
            declared = [
                [Asked(payload.kind.__name__, payload.count, payload.dtype) for payload in payloads]
                for payloads in operator.traffic(spec, world_size, step)
            ]
            assert rounds == declared


def test_traffic_per_worker_stays_flat_or_grows_as_the_row_says(row: Row) -> None:
    """At most 2 (W-1)/W of what two workers send, and the padding of shards; what is gathered or merged grows."""
    for shape in ((256, 256), (2**14,)):
        spec = Spec(shape)
        few, many = (unit_of(row, spec, world) for world in (2, 64))
        if few.passed_over or many.passed_over:
            continue
        two = max(few.operator.wire_bytes(few.spec, 2, step) for step in (LATE, LATE + 1))
        crowd = max(many.operator.wire_bytes(many.spec, 64, step) for step in (LATE, LATE + 1))
        if row.flat:
            assert crowd <= 2 * two * 63 / 64 + 64 * 64
        else:
            assert crowd >= 2.5 * two


@pytest.mark.parametrize("world", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("nbytes", [0, 1, 7, 4096])
def test_what_a_worker_sends_for_a_collective(world: int, nbytes: int) -> None:
    """A ring allreduce is a reduce-scatter and an allgather of 1/W each; all of W workers together send W times it."""
    others = (world - 1) / world
    assert sent_bytes(Mean, nbytes, world) == sent_bytes(Sum, nbytes, world) == math.ceil(2 * others * nbytes - 1e-9)
    assert sent_bytes(AllGather, nbytes, world) == (world - 1) * nbytes
    assert sent_bytes(AllToAll, nbytes, world) == math.ceil(others * nbytes - 1e-9)
    assert sent_bytes(Broadcast, nbytes, world) == math.ceil(others * nbytes - 1e-9)


def test_local_work_is_no_traffic() -> None:
    with pytest.raises(TypeError, match="Meanwhile"):
        sent_bytes(Meanwhile, 4, 2)  # type: ignore[arg-type]


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_powersgd_volume_is_the_papers(rank: int) -> None:
    """sum over matrices r (n + m) + sum over vectors d, of 4 bytes, whatever the number of workers."""
    shapes = {"conv": (64, 32, 3, 3), "fc": (50, 100), "bias": (64,), "scale": ()}
    elements = rank * (64 + 288) + rank * (50 + 100) + 64 + 1
    for world in (2, 4, 7):
        simulator = Simulator(PowerSGD(rank=rank), world)
        simulator.step([{name: np.zeros(shape, np.float32) for name, shape in shapes.items()}] * world)
        assert abs(simulator.sent_bytes - 2 * (world - 1) / world * 4 * elements) < 2 * len(shapes)


def test_two_way_volume_does_not_grow_with_the_number_of_workers(world_size: int) -> None:
    spec = Spec((4800,))
    operator = operator_of(Cast("bfloat16"), spec)
    assert operator.wire_bytes(spec, world_size) == 2 * 2 * 4800 * (world_size - 1) // world_size


def test_element_sizes() -> None:
    for dtype in EPSILON:
        expected = 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize
        assert DTYPE_BYTES[dtype] == expected
        assert Spec((3, 5), dtype).nbytes == 15 * expected
