"""Units of several tensors: an operator of a third party says how much it wants at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from cases import Library, assert_close, dtype_of, normal_gradients
from oracles.averaging import average_models

from hvd_compress import Cast, ErrorFeedback, Operator, Simulator, Spec, Warmup
from hvd_compress.contract import Context, Exchange, Exchanged, Leaf, Leaves, Mean, Payload, Scope, Traffic
from hvd_compress.exchange import Plan, make_plan

SHAPES = {"a": (2, 3), "b": (4,), "c": (), "d": (5, 2), "e": (0,)}
PARAMETERS = [(name, Spec(shape)) for name, shape in SHAPES.items()]


@dataclass(frozen=True, repr=False)
class Flat(Operator):
    """Averages flat units of up to `at_once` bytes of more than `smallest` elements, and adds up what it saw."""

    at_once: float
    smallest: int = 0

    @property
    def unit_bytes(self) -> float:
        return self.at_once

    def compresses(self, spec: Spec) -> bool:
        return spec.size > self.smallest

    def leaves(self, spec: Spec, world_size: int) -> Leaves:
        return {"seen": Leaf(spec.shape, spec.dtype, Scope.REPLICATED)}

    def exchange(self, grad: Any, state: dict[str, Any], context: Context) -> Exchange:
        assert tuple(grad.shape) == context.spec.shape
        (mean,) = yield [Mean(grad)]
        return Exchanged(mean, None, {"seen": context.ops.add_(state["seen"], mean)})

    def traffic(self, spec: Spec, world_size: int, step: int) -> Traffic:
        return ((Payload(Mean, spec.size, spec.dtype),),)


def flat_units(plan: Plan) -> list[tuple[str, tuple[int, ...]]]:
    return [(unit.name, unit.spec.shape) for unit in plan.units if not unit.dense]


@pytest.mark.parametrize(
    ("at_once", "expected"),
    [
        (0, [("a", (2, 3)), ("b", (4,)), ("c", ()), ("d", (5, 2))]),
        (1, [("a", (6,)), ("b", (4,)), ("c", (1,)), ("d", (10,))]),
        (39, [("a", (6,)), ("b..c", (5,)), ("d", (10,))]),
        (40, [("a..b", (10,)), ("c", (1,)), ("d", (10,))]),
        (44, [("a..c", (11,)), ("d", (10,))]),
        (math.inf, [("a..d", (21,))]),
    ],
)
def test_tensors_are_joined_up_to_so_many_bytes(at_once: float, expected: list[tuple[str, tuple[int, ...]]]) -> None:
    assert flat_units(make_plan(Flat(at_once), PARAMETERS, 2)) == expected


def test_wrappers_keep_the_granularity() -> None:
    for wrapped in (ErrorFeedback(Flat(math.inf)), Warmup(1, Flat(math.inf)), Warmup(1, ErrorFeedback(Flat(math.inf)))):
        assert flat_units(make_plan(wrapped, PARAMETERS, 2)) == [("a..d", (21,))]


def test_what_is_not_worth_it_and_what_is_empty_travels_dense_and_alone() -> None:
    plan = make_plan(Flat(math.inf, smallest=4), PARAMETERS, 2)
    assert flat_units(plan) == [("a..d", (16,))]
    assert [unit.name for unit in plan.units if unit.dense] == ["b", "c", "e"]


def test_element_types_are_not_joined() -> None:
    parameters = [("a", Spec((3,))), ("b", Spec((3,), "float64")), ("c", Spec((3,), "float64"))]
    assert flat_units(make_plan(Flat(math.inf), parameters, 2)) == [("a", (3,)), ("b..c", (6,))]


@pytest.mark.parametrize("at_once", [0, 40, math.inf])
@pytest.mark.parametrize("smallest", [0, 4])
def test_what_comes_back_is_cut_where_it_was_joined(library: Library, at_once: float, smallest: int) -> None:
    simulator = Simulator(Flat(at_once, smallest), 3)
    for step in range(2):
        gradients = normal_gradients(3, step, SHAPES)
        for means in simulator.step(library.arrays(gradients)):
            for name, x in average_models(gradients).items():
                assert tuple(means[name].shape) == SHAPES[name]
                assert dtype_of(means[name]) == "float32"
                assert_close(means[name], x, 1e-6, scale=4.0)


def test_a_joined_unit_keeps_one_state() -> None:
    simulator = Simulator(Flat(math.inf), 1)
    total = np.zeros(21)
    for step in range(3):
        (gradients,) = normal_gradients(1, step, SHAPES)
        simulator.step([gradients])
        total += np.concatenate([x.ravel() for x in gradients.values()])
    (saved,) = simulator.state_dicts()
    seen = saved["units"]["a..d"]["leaves"]["seen"]
    assert list(seen) == ["a", "b", "c", "d"], "saved by parameter"
    assert_close(np.concatenate([seen[name].ravel() for name in seen]), total, 1e-12)


@pytest.mark.parametrize("groups", [[["b", "d"]], [["a", "d"]], [["c"], ["b", "d"]]], ids=str)
def test_groups_hold_for_every_member_of_a_joined_unit(groups: list[list[str]]) -> None:
    """Names of one group are in one bucket, also where a unit holds several names."""
    plan = make_plan(Flat(40), PARAMETERS, 2, groups=groups, bucket_bytes=1)
    bucket_of = {
        name: i for i, bucket in enumerate(plan.buckets) for u in bucket for name, _ in plan.units[u].parameters
    }
    for group in groups:
        assert len({bucket_of[name] for name in group}) == 1


def test_a_codec_works_on_one_tensor_at_a_time() -> None:
    assert [unit.name for unit in make_plan(ErrorFeedback(Cast()), PARAMETERS, 2).units] == list(SHAPES)
