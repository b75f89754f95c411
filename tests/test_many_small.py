"""Many small tensors whose operator works in blocks are joined by the plan; a few are not."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from cases import NUMPY, Library, assert_close, bits, normal_gradients

from hvd_compress import (
    AllGather,
    AllReduce,
    BlockSign,
    Cast,
    ConfigurationError,
    CyclicTopK,
    DistEFBlockSGD,
    DistEFBlockSGDM,
    EFSignSGD,
    ErrorFeedback,
    Identity,
    Joined,
    PowerSGD,
    ScaleCom,
    Simulator,
    StepSizeScaling,
    TopK,
    TwoWay,
)
from hvd_compress.contract import AllGather as Gathered
from hvd_compress.contract import Codec, Collective, Operator, Spec
from hvd_compress.exchange import Worker, make_plan, units

SCALECOM, SCALECOM_OF_FOUR = ScaleCom(16, min_size=0), ScaleCom(4, min_size=0)
BLOCKWISE = [
    SCALECOM,
    DistEFBlockSGD(BlockSign(block=256)),
    DistEFBlockSGDM(BlockSign(block=256), weight_decay=0.01),
    StepSizeScaling(ErrorFeedback(TwoWay(BlockSign(block=16)))),
    AllGather(TopK(0.05, selection="chunked", min_size=0)),
    TwoWay(Cast("bfloat16")),
]
OTHERS = [
    ScaleCom(16, selection="exact"),
    DistEFBlockSGD(BlockSign()),
    EFSignSGD(),
    TopK(0.05),
    PowerSGD(),
    AllReduce(Identity()),
]
MANY = units.MANY + 1


def small(count: int = MANY, shape: tuple[int, ...] = (8, 128)) -> dict[str, tuple[int, ...]]:
    return {f"w{i:03}": shape for i in range(count)}


def plan_units(
    compressor: Operator | Codec, shapes: Mapping[str, tuple[int, ...]], **options: object
) -> list[tuple[str, ...]]:
    parameters = [(name, Spec(shape, "float32")) for name, shape in shapes.items()]
    plan = make_plan(compressor, parameters, 2, allow_larger=True, **options)  # type: ignore[arg-type]
    assert sorted(name for unit in plan.units for name, _ in unit.parameters) == sorted(shapes)
    return [tuple(name for name, _ in unit.parameters) for unit in plan.units]


def simulator(
    compressor: Operator | Codec, world: int, shapes: Mapping[str, tuple[int, ...]], library: Library = NUMPY
) -> Simulator:
    (parameters,) = library.arrays([{name: np.ones(shape) for name, shape in shapes.items()}])
    return Simulator(compressor, world, learning_rate=0.1, parameters=parameters, allow_larger=True)


def run(made: Simulator, shapes: Mapping[str, tuple[int, ...]], library: Library = NUMPY) -> list[bytes]:
    found: list[bytes] = []
    for step in range(3):
        means = made.step(library.arrays(normal_gradients(made.world_size, step, shapes)))
        found += [bits(own[name]) for own in means for name in shapes]
    return found


@pytest.mark.parametrize("compressor", BLOCKWISE, ids=repr)
def test_many_are_joined_and_a_few_are_not(compressor: Operator) -> None:
    assert plan_units(compressor, small()) == [tuple(small())]
    assert plan_units(compressor, small(units.MANY)) == [(name,) for name in small(units.MANY)]


@pytest.mark.parametrize("compressor", OTHERS, ids=repr)
def test_what_asks_where_a_tensor_ends_is_not_joined(compressor: Operator | Codec) -> None:
    assert plan_units(compressor, small()) == [(name,) for name in small()]


def test_large_ones_stay_alone_and_units_stay_short() -> None:
    large = {"large": (2, units.SMALL // 8 + 1)}
    assert plan_units(SCALECOM, {**large, **small()}) == [("large",), tuple(small())]
    full = small(1025, (4, 1024))  # a unit takes 256 of 16 KB
    assert [len(unit) for unit in plan_units(SCALECOM, full)] == [256, 256, 256, 256, 1]


def test_buckets_have_no_say_in_what_is_joined() -> None:
    """What is remembered belongs to units, and must not depend on what travels together."""
    shapes = {**small(40), "between": (1000, 1000), **small(80)}
    for bucket_bytes in (1e4, 1e6, float("inf")):
        assert plan_units(SCALECOM, shapes, bucket_bytes=bucket_bytes) == [("between",), tuple(small(80))]


def test_tensors_of_few_blocks_stay_alone() -> None:
    """They would share the scales, or the places, of their neighbours."""
    shapes = small(MANY, (1023,))
    assert plan_units(DistEFBlockSGD(BlockSign(block=256)), shapes) == [(name,) for name in shapes]
    assert plan_units(DistEFBlockSGD(BlockSign(block=256)), small(MANY, (1024,))) == [tuple(shapes)]


@pytest.mark.parametrize("compressor", BLOCKWISE, ids=repr)
@pytest.mark.parametrize("world", [1, 3])
def test_neighbours_are_noticed_in_the_blocks_at_the_ends_only(compressor: Operator, world: int) -> None:
    """However large what stands before and after a tensor is."""
    shapes = small(MANY, (1061,))
    own, length = f"w{MANY // 2:03}", max(1, compressor.block_length)
    found = []
    for factor in (1.0, 1e3):
        made = simulator(compressor, world, shapes)
        for step in range(3):
            gradients = [
                {name: x if name == own else factor * x for name, x in g.items()}
                for g in normal_gradients(world, step, shapes)
            ]
            means = made.step(NUMPY.arrays(gradients))[0]
        found.append(means[own][length:-length])
    assert len(found[0]) >= 2 * length
    assert bits(found[0]) == bits(found[1])


def test_only_what_is_alike_is_joined() -> None:
    shapes = small(2 * MANY)
    names = list(shapes)
    halves = [tuple(names[::2]), tuple(names[1::2])]
    kinds = {name: i % 2 for i, name in enumerate(names)}
    assert plan_units(SCALECOM, shapes, kinds=kinds) == halves
    assert plan_units(SCALECOM, shapes, groups=halves) == halves
    # Who asks for joined tensors gets them.
    assert plan_units(Joined(SCALECOM, 50), shapes, kinds=kinds) == [tuple(names)]


@pytest.mark.parametrize("compressor", BLOCKWISE, ids=repr)
@pytest.mark.parametrize("world", [1, 3])
def test_it_is_what_joined_does(compressor: Operator, world: int, library: Library) -> None:
    shapes = small(MANY, (3, 347))
    explicit = simulator(Joined(compressor, 50), world, shapes, library)
    joined = simulator(compressor, world, shapes, library)
    assert run(joined, shapes, library) == run(explicit, shapes, library)
    assert joined.sent_bytes == explicit.sent_bytes
    assert all(set(worker.memories()) in (set(), set(shapes)) for worker in joined.workers)


@pytest.mark.parametrize("compressor", BLOCKWISE, ids=repr)
def test_where_blocks_end_with_tensors_one_worker_cannot_tell(
    compressor: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker serves and chooses everything; with more, others lead and serve where tensors are joined."""
    shapes = small(MANY, (16, 20)) if isinstance(compressor, AllGather) else small()  # chunks of 20, or of 16 to 256
    joined = run(simulator(compressor, 1, shapes), shapes)
    monkeypatch.setattr(units, "MANY", MANY)
    assert run(simulator(compressor, 1, shapes), shapes) == joined


def test_nothing_is_lost() -> None:
    """What was sent and what is owed add up to all gradients, parameter by parameter."""
    shapes = small(MANY, (3, 27))
    made = Simulator(SCALECOM, 2)
    sent = {name: np.zeros(shape) for name, shape in shapes.items()}
    total = {name: np.zeros(shape) for name, shape in shapes.items()}
    for step in range(4):
        gradients = normal_gradients(2, step, shapes)
        for name in shapes:
            total[name] += np.mean([own[name] for own in gradients], axis=0)
        for name, mean in made.step(gradients)[0].items():
            sent[name] += mean
    owed = [worker.memories() for worker in made.workers]
    for name in shapes:
        assert_close(sent[name] + np.mean([own[name] for own in owed], axis=0), total[name], 1e-5)


def test_what_is_inside_says_so() -> None:
    assert (CyclicTopK(64).block_length, CyclicTopK(64, selection="exact").block_length) == (64, 0)
    assert (TopK(0.01, selection="chunked").block_length, TopK(0.01).block_length) == (100, 0)
    assert (Cast().block_length, Identity().block_length, BlockSign().block_length) == (1, 1, 0)


def test_a_state_of_other_units_is_refused_by_name() -> None:
    shapes = small(70, (16,))
    names = list(shapes)

    def worker(kinds: Mapping[str, int]) -> Worker:
        parameters = [(name, Spec(shape, "float32")) for name, shape in shapes.items()]
        made = Worker(make_plan(SCALECOM_OF_FOUR, parameters, 1, allow_larger=True, kinds=kinds), 0, 1)
        exchange = made.begin(0, NUMPY.arrays(normal_gradients(1, 0, shapes))[0])
        while not exchange.done:
            exchange.answer([_alone(fused.request) for fused in exchange.pending])
        made.finish(0, exchange)
        made.end_step()
        return made

    joined = worker({})
    joined.load_state_dict(joined.state_dict())
    with pytest.raises(ConfigurationError, match="1 units of the same parameters, this run has 70 others"):
        worker({name: i for i, name in enumerate(names)}).load_state_dict(joined.state_dict())


def _alone(request: Collective) -> np.ndarray:
    return request.array[None] if isinstance(request, Gathered) else request.array
