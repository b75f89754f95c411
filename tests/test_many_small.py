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
from hvd_compress.contract import Codec, Operator, Spec
from hvd_compress.exchange import make_plan, units

SCALECOM = ScaleCom(16, min_size=0)
BLOCKWISE = [
    SCALECOM,
    DistEFBlockSGD(),
    DistEFBlockSGDM(weight_decay=0.01),
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


def small(count: int = MANY, shape: tuple[int, ...] = (8, 32)) -> dict[str, tuple[int, ...]]:
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


def test_units_reach_over_no_more_gradients_than_a_bucket_has() -> None:
    """A bucket starts with its last gradient: a unit from both ends of the model would hold up the first bucket."""
    large = {"between": (1000, 1000)}
    first, second = (dict(list(small(80).items())[half]) for half in (slice(40), slice(40, 80)))
    shapes = {**first, **large, **second}
    assert plan_units(SCALECOM, shapes, bucket_bytes=1e6) == [("between",), tuple(first), tuple(second)]
    assert plan_units(SCALECOM, shapes) == [("between",), (*first, *second)]


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
    shapes = small(MANY, (3, 7))
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
    shapes = small(MANY, (3, 7))
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
    assert CyclicTopK().blockwise and not CyclicTopK(selection="exact").blockwise
    assert Cast().blockwise and Identity().blockwise
