"""NumPy gradients over real mpi4py: the same as the simulator, for every kind of collective."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from hvd_compress import (
    DGC,
    BestLowRank,
    Cast,
    ConfigurationError,
    ErrorFeedback,
    GTopK,
    Identity,
    Operator,
    PowerSGD,
    RankDisagreementError,
    SharedScale,
    Simulator,
    TwoWay,
)
from hvd_compress.contract import (
    AllGather,
    Array,
    Broadcast,
    Context,
    Exchange,
    Exchanged,
    Payload,
    Spec,
    State,
    Sum,
    Traffic,
    walk,
)
from hvd_compress.mpi import GradientExchange

from .harness import check

SHAPES: dict[str, tuple[int, ...]] = {
    "matrix": (24, 18),
    "twin": (24, 18),
    "conv": (12, 8, 3, 3),
    "odd": (5, 3),
    "bias": (7,),
    "scalar": (),
    "empty": (0,),
    "hollow": (3, 0),
}
STEPS = 4
# Sums in another order, through a QR; 16-bit payloads may round the other way, one unit in the last place.
TOLERANCE = {"float64": 1e-12, "float32": 3e-5, "float16": 4e-3}


def world() -> Any:
    """Return the communicator of all ranks; importing it here starts MPI in workers only."""
    from mpi4py import MPI

    return MPI.COMM_WORLD


def gradients(step: int, dtype: str = "float32") -> list[dict[str, np.ndarray]]:
    """Return the gradients of all ranks, the same wherever they are computed."""
    draws = [np.random.default_rng([17, step, rank]) for rank in range(world().Get_size())]
    return [{name: np.asarray(d.standard_normal(s), dtype) for name, s in SHAPES.items()} for d in draws]


def assert_close(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], tolerance: float) -> None:
    """Check names, shapes, element types, and numbers to within `tolerance` x the largest number expected."""
    assert found.keys() == expected.keys()
    for name, right in expected.items():
        x = found[name]
        assert (x.shape, x.dtype) == (right.shape, right.dtype), f"{name}: {x.shape} {x.dtype}"
        if right.size:
            error = np.abs(x.astype(np.float64) - right.astype(np.float64)).max()
            scale = np.abs(right.astype(np.float64)).max()
            assert error <= tolerance * scale, f"{name}: off by {error:g}, allowed {tolerance * scale:g}"


def assert_same_bits(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    """Check that nothing differs in a single bit."""
    assert found.keys() == expected.keys()
    for name, right in expected.items():
        assert found[name].dtype == right.dtype and found[name].tobytes() == right.tobytes(), name


def assert_equal_on_ranks(arrays: Mapping[str, np.ndarray], comm: Any = None) -> None:
    """Check that every rank holds the same bits."""
    everyone = (comm or world()).allgather({name: x.tobytes() for name, x in arrays.items()})
    assert all(other == everyone[0] for other in everyone)


@contextmanager
def raises(error: type[BaseException], *fragments: str) -> Iterator[None]:
    """Check that the block raises exactly this kind of error, with these words in its message."""
    try:
        yield
    except error as raised:
        assert type(raised) is error, repr(raised)
        missing = [f for f in fragments if f not in str(raised)]
        assert not missing, f"{missing} is not in the message {str(raised)!r}"
        return
    raise AssertionError(f"{error.__name__} was not raised")


@final
@dataclass(frozen=True)
class Gathering(Operator):
    """The sum over ranks by three roads at once, each a collective of its own: all must agree."""

    def exchange(self, grad: Array, state: State, context: Context) -> Exchange:
        root = context.world_size - 1
        total, rows, theirs = yield [Sum(np.array(grad)), AllGather(grad), Broadcast(grad, root)]
        assert np.abs(np.sum(rows, axis=0, dtype=np.float64) - total).max(initial=0.0) <= 1e-5 * context.world_size * 4
        assert theirs.tobytes() == np.ascontiguousarray(rows[root]).tobytes()
        assert np.ascontiguousarray(rows[context.rank]).tobytes() == np.ascontiguousarray(grad).tobytes()
        return Exchanged(total / np.asarray(context.world_size, total.dtype), None, state)

    def traffic(self, spec: Spec, world_size: int, step: int) -> Traffic:
        return (tuple(Payload(kind, spec.size, spec.dtype) for kind in (Sum, AllGather, Broadcast)),)


COMPRESSORS: dict[str, Any] = {
    "identity": Identity(),
    "powersgd": PowerSGD(rank=2),
    "powersgd-full": PowerSGD(rank=10**6, min_saving=0),
    "alternate": PowerSGD(rank=2, alternate=True),
    "cold": PowerSGD(rank=2, warm_start=False),
    "later": PowerSGD(rank=2, start_after=2),
    "best-low-rank": ErrorFeedback(BestLowRank(rank=2)),
    "fp16": Cast("float16"),
    "bf16": Cast("bfloat16"),
    "two-way": TwoWay(Identity()),
    "two-way-fp16": TwoWay(Cast("float16")),
    "feedback-fp16": ErrorFeedback(Cast("float16")),
    "feedback-bf16": ErrorFeedback(TwoWay(Cast("bfloat16"))),
    "shared-scale": ErrorFeedback(SharedScale(bucket=50)),
    "gathering": Gathering(),
    "gtopk": GTopK(0.05, min_size=300),
    "dgc": DGC(0.05, momentum=0.7, min_size=300),
}
DTYPES = ("float64", "float32", "float16")


def _tolerance(name: str, dtype: str) -> float:
    payload = {"fp16": 2e-3, "bf16": 1e-2}
    return max(TOLERANCE[dtype], next((allowed for kind, allowed in payload.items() if kind in name), 0.0))


@check(cases=[f"{name}-of-{dtype}" for name in COMPRESSORS for dtype in DTYPES])
def equals_the_simulator(case: str) -> None:
    name, dtype = case.split("-of-")
    if name == "gathering" and dtype == "float16":
        return  # it adds up in float64, which float16 sums are not near enough to
    exchange = GradientExchange(COMPRESSORS[name], allow_larger=True)
    simulator = Simulator(COMPRESSORS[name], world().Get_size(), allow_larger=True)
    for step in range(STEPS):
        everyone = gradients(step, dtype=dtype)
        own = everyone[world().Get_rank()]
        untouched = {n: g.copy() for n, g in own.items()}
        found = exchange(own)
        assert_same_bits(own, untouched)
        expected = simulator.step(everyone)[world().Get_rank()]
        assert_close(found, expected, _tolerance(name, dtype))
    assert_equal_on_ranks(found)
    assert exchange.plan.units == simulator.plan.units
    planned = sum(exchange.plan.wire_bytes(world().Get_size(), step) for step in range(STEPS))
    assert exchange.meter.sent_bytes == planned == simulator.sent_bytes > 0
    _assert_same_state(exchange.state_dict(), simulator.state_dicts()[world().Get_rank()], _tolerance(name, dtype))


def _assert_same_state(found: dict[str, Any], expected: dict[str, Any], tolerance: float) -> None:
    leaves = [dict(walk({n: unit.pop("leaves") for n, unit in s["units"].items()})) for s in (found, expected)]
    assert found == expected
    assert leaves[0].keys() == leaves[1].keys()
    for path, right in leaves[1].items():
        # A residual is a difference of numbers of size 1: its error is relative to them.
        scale = max(1.0, np.abs(right).max(initial=0.0))
        assert np.abs(leaves[0][path] - right).max(initial=0.0) <= tolerance * scale, path


@check(cases=["identity", "powersgd", "bf16", "feedback-fp16"])
def several_buckets_equal_the_simulator(name: str) -> None:
    exchange = GradientExchange(COMPRESSORS[name], bucket_bytes=500, allow_larger=True)
    simulator = Simulator(COMPRESSORS[name], world().Get_size(), bucket_bytes=500, allow_larger=True)
    for step in range(STEPS):
        everyone = gradients(step)
        expected = simulator.step(everyone)[world().Get_rank()]
        assert_close(exchange(everyone[world().Get_rank()]), expected, _tolerance(name, "float32"))
    assert len(exchange.plan.buckets) >= 4 and exchange.plan.buckets == simulator.plan.buckets


@check(cases=["keep", "flush", "drop"])
def another_compressor_goes_on_as_in_the_simulator(residual: str) -> None:
    before, after = PowerSGD(rank=2), ErrorFeedback(TwoWay(Identity()))
    exchange = GradientExchange(before, allow_larger=True)
    simulator = Simulator(before, world().Get_size(), allow_larger=True)
    for step in range(4):
        if step == 2:
            exchange.change_compression(after, residual)
            simulator.change_compression(after, residual)
        everyone = gradients(step)
        found = exchange(everyone[world().Get_rank()])
        assert_close(found, simulator.step(everyone)[world().Get_rank()], _tolerance("", "float32"))
    assert exchange.meter.sent_bytes == simulator.sent_bytes


@check()
def ranks_that_change_to_different_compressors_are_told() -> None:
    exchange = GradientExchange(PowerSGD(rank=2), allow_larger=True)
    exchange(gradients(0)[world().Get_rank()])
    with raises(RankDisagreementError, "PowerSGD(rank=1)"):
        exchange.change_compression(PowerSGD(rank=1) if world().Get_rank() else Identity())
    exchange(gradients(1)[world().Get_rank()])


@check(cases=["powersgd", "alternate", "identity", "bf16"])
def collectives_are_fused(name: str) -> None:
    exchange = GradientExchange(COMPRESSORS[name], allow_larger=True)
    for step in range(3):
        exchange(gradients(step)[world().Get_rank()])
    assert exchange.meter.collectives == 3 * {"powersgd": 2, "alternate": 1, "identity": 1, "bf16": 2}[name]


@check()
def half_sums_round_as_numpy_does_and_do_not_overflow() -> None:
    """MPI knows no float16: bits must be added as numbers."""
    size, rank = world().Get_size(), world().Get_rank()
    exchange = GradientExchange(Cast("float16"), allow_larger=True)
    found = exchange({"a": np.full(33, 60000.0, np.float32), "b": np.full(5, rank - 1.0, np.float32)})
    assert np.abs(found["a"] - 60000.0).max() <= 60000.0 * 2e-3
    assert np.abs(found["b"] - (sum(range(size)) / size - 1.0)).max() <= 2e-3


@check()
def many_exchanges_in_one_process() -> None:
    """Each takes something from MPI, which does not have much of it: handles of reduction operations, say."""
    own = {"a": np.ones(3, np.float32)}
    for _ in range(300):
        assert GradientExchange(Cast("float16"), allow_larger=True)(own)["a"].tolist() == [1.0, 1.0, 1.0]


@check(cases=["powersgd", "identity", "fp16", "bf16"])
def donated_gradients_give_the_same(name: str) -> None:
    copied, donated = (
        GradientExchange(COMPRESSORS[name], allow_larger=True),
        GradientExchange(COMPRESSORS[name], allow_larger=True),
    )
    for step in range(STEPS):
        own = gradients(step)[world().Get_rank()]
        assert_same_bits(donated({n: g.copy() for n, g in own.items()}, donate=True), copied(own))


@check()
def layouts() -> None:
    everyone = gradients(0)
    own = {n: g.copy(order="F") for n, g in everyone[world().Get_rank()].items()}
    assert not own["conv"].flags.c_contiguous
    exchange, plain = (
        GradientExchange(PowerSGD(rank=2), allow_larger=True),
        GradientExchange(PowerSGD(rank=2), allow_larger=True),
    )
    assert_close(exchange(own), plain(everyone[world().Get_rank()]), 1e-5)


@check(min_ranks=2)
def sub_communicators() -> None:
    """Ranks split in two: each part averages among itself, with other compressors and numbers of steps."""
    rank = world().Get_rank()
    comm = world().Split(color=int(rank == 0), key=-rank)
    try:
        compressor = PowerSGD(rank=2) if rank == 0 else TwoWay(Identity())
        exchange = GradientExchange(compressor, comm, allow_larger=True)
        simulator = Simulator(compressor, comm.Get_size(), allow_larger=True)
        for step in range(3 if rank == 0 else 2):
            everyone = gradients(step)
            members = comm.allgather(rank)
            found = exchange(everyone[rank])
            expected = simulator.step([everyone[r] for r in members])[comm.Get_rank()]
            assert_close(found, expected, 3e-5)
        assert_equal_on_ranks(found, comm)
    finally:
        comm.Free()


@check(cases=["powersgd", "bf16", "fp16", "two-way", "gathering"])
def a_communicator_of_one(name: str) -> None:
    compressor = COMPRESSORS[name]
    from mpi4py import MPI

    exchange, simulator = (
        GradientExchange(compressor, MPI.COMM_SELF, allow_larger=True),
        Simulator(compressor, 1, allow_larger=True),
    )
    for step in range(3):
        own = gradients(step)[world().Get_rank()]
        assert_close(exchange(own), simulator.step([own])[0], 1e-6)
    assert exchange.meter.sent_bytes == 0


@check(cases=["powersgd", "alternate", "feedback-bf16", "identity"])
def continuing_equals_uninterrupted(name: str) -> None:
    rank = world().Get_rank()
    exchange = GradientExchange(COMPRESSORS[name], allow_larger=True)
    for step in range(3):
        exchange(gradients(step)[rank])
    saved = exchange.state_dict()
    expected = [exchange(gradients(step)[rank]) for step in range(3, 6)]
    fresh = GradientExchange(COMPRESSORS[name], allow_larger=True)
    with raises(ConfigurationError, "set_up(gradients)"):
        fresh.load_state_dict(saved)
    fresh.set_up(gradients(0)[rank])
    fresh.load_state_dict(saved)
    for step, right in enumerate(expected, start=3):
        assert_same_bits(fresh(gradients(step)[rank]), right)


@check()
def states_that_do_not_fit_are_refused() -> None:
    exchange = GradientExchange(PowerSGD(rank=2), allow_larger=True)
    exchange(gradients(0)[world().Get_rank()])
    saved = exchange.state_dict()
    other = GradientExchange(PowerSGD(rank=3), allow_larger=True)
    other.set_up(gradients(0)[world().Get_rank()])
    with raises(ConfigurationError, "compressor", "rank=2", "rank=3"):
        other.load_state_dict(saved)
    with raises(ConfigurationError, "rank"):
        exchange.load_state_dict({**saved, "rank": world().Get_rank() + 1})
    with raises(ConfigurationError, "world_size"):
        exchange.load_state_dict({**saved, "world_size": world().Get_size() + 1})


DIFFERENCES: dict[str, tuple[tuple[Any, dict[str, tuple[int, ...]]], tuple[Any, dict[str, tuple[int, ...]]], str, str]]
DIFFERENCES = {
    "rank": ((PowerSGD(rank=2), SHAPES), (PowerSGD(rank=3), SHAPES), "PowerSGD(rank=2", "PowerSGD(rank=3"),
    "compressor": ((PowerSGD(), SHAPES), (Cast(), SHAPES), "PowerSGD(", "Cast("),
    "shape": ((Identity(), {"a": (3, 2)}), (Identity(), {"a": (2, 3)}), "a: [3, 2]", "a: [2, 3]"),
    "name": ((Identity(), {"left": (3,)}), (Identity(), {"right": (3,)}), "left", "right"),
    "order": (
        (Identity(), {"a": (3,), "b": (2,)}),
        (Identity(), {"b": (2,), "a": (3,)}),
        "rank 0 has",
        "has",
    ),
}


@check(min_ranks=2, cases=DIFFERENCES, seconds=60.0)
def disagreement_is_reported_on_every_rank(case: str) -> None:
    first, last, of_first, of_last = DIFFERENCES[case]
    compressor, shapes = last if world().Get_rank() == world().Get_size() - 1 else first
    exchange = GradientExchange(compressor, allow_larger=True)
    with raises(RankDisagreementError, of_first, of_last, "Ranks 0 and"):
        exchange({name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
    # All ranks can go on together afterwards.
    assert_equal_on_ranks(GradientExchange(PowerSGD(rank=2), allow_larger=True)(gradients(0)[world().Get_rank()]))


@check()
def random_streams_are_left_alone() -> None:
    own = gradients(0)[world().Get_rank()]
    before = np.random.get_state()
    GradientExchange(PowerSGD(rank=2, warm_start=False), allow_larger=True)(own)
    assert all(np.array_equal(a, b) for a, b in zip(before, np.random.get_state(), strict=True))
