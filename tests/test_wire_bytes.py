"""Law: what travels is what shapes alone predict: bytes, and round by round the collectives themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from cases import EPSILON, MODEL, Library, Row, normal_gradients, simulator_of
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
from hvd_compress.operators import dense_operator, operator_of
from hvd_compress.ops import ops_of


def test_bytes_counted_are_bytes_predicted(row: Row, library: Library, world_size: int) -> None:
    simulator = simulator_of(row, world_size, library)
    counted = 0
    for step in range(4):
        simulator.step(library.arrays(normal_gradients(world_size, step)))
        predicted = sum(unit.operator.wire_bytes(unit.spec, world_size, step) for unit in simulator.plan.units)
        assert predicted == simulator.plan.wire_bytes(world_size, step)
        assert simulator.sent_bytes - counted == predicted
        counted = simulator.sent_bytes
    assert (counted == 0) == (world_size == 1)


def test_collectives_asked_are_those_declared(row: Row, world_size: int) -> None:
    """The kind, count and element type of everything yielded, in order, at every step, kept or not."""
    check_collectives(row, world_size, "float32")


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_collectives_asked_in_other_element_types(row: Row, dtype: str) -> None:
    check_collectives(row, 2, dtype)


def check_collectives(row: Row, world_size: int, dtype: str) -> None:
    library = Library(row.libraries[0])
    for name, shape in MODEL.items():
        spec = Spec(shape, dtype)
        operator = operator_of(row.compressor, spec)
        if spec.size == 0 or not operator.compresses(spec):
            operator = dense_operator(spec)
        ops = ops_of(library.array(0.0))
        states = [initial_state(operator.leaves(spec, world_size), ops, name) for _ in range(world_size)]
        for step in range(3):
            gradients = [library.array(own[name], dtype) for own in normal_gradients(world_size, step)]
            exchanges = [
                operator.exchange(
                    gradient, states[rank], Context(ops, spec, name, step, rank, world_size, feedback=step % 2 == 1)
                )
                for rank, gradient in enumerate(gradients)
            ]
            outcomes, rounds = lockstep(exchanges)
            states = [outcome.state for outcome in outcomes]
            declared = [
                [Asked(payload.kind.__name__, payload.count, payload.dtype) for payload in payloads]
                for payloads in operator.traffic(spec, world_size, step)
            ]
            assert rounds == declared


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
