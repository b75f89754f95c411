"""Policies: the first rule that a parameter meets chooses, in plans and inside wrappers."""

from __future__ import annotations

from typing import Any

import pytest
from cases import NUMPY, assert_close, bits, normal_gradients
from hypothesis import given
from hypothesis import strategies as st
from oracles.averaging import average_models

from hvd_compress import (
    ByDimension,
    ByName,
    BySize,
    Cast,
    ConfigurationError,
    ErrorFeedback,
    Half,
    Identity,
    Joined,
    LocalWeightDecay,
    LowRank,
    Momentum,
    PowerSGD,
    Simulator,
    Spec,
    TwoWay,
    UsageError,
    Warmup,
)
from hvd_compress.contract import Context
from hvd_compress.ops import ops_of

SHAPES = {"encoder.weight": (12, 9), "encoder.bias": (9,), "head.weight": (12, 9), "head.bias": (12,), "scale": ()}
POLICIES = [
    ByName({"encoder.*": PowerSGD(rank=1), "*.bias": Cast()}, Identity()),
    BySize({10: Identity(), 100: Cast()}, PowerSGD(rank=2)),
    ByDimension({0: Identity(), 2: PowerSGD(rank=2)}, Cast("bfloat16")),
]


def chosen(compressor: Any, **shapes: tuple[int, ...]) -> dict[str, Any]:
    """Return each parameter's operator as planned."""
    shapes = shapes or SHAPES
    simulator = Simulator(compressor, 2, allow_larger=True)
    simulator.set_up(NUMPY.arrays(normal_gradients(2, 0, shapes)))
    return {name: unit.operator for unit in simulator.plan.units for name, _ in unit.parameters}


def test_the_first_pattern_that_matches_chooses() -> None:
    policy = ByName((("encoder.*", Warmup(1, Cast())), ("*.weight", LowRank())), TwoWay(Cast()))
    found = chosen(policy)
    assert found["encoder.weight"] == found["encoder.bias"] == Warmup(1, Cast())
    assert found["head.weight"] == LowRank()
    assert found["head.bias"] == found["scale"] == TwoWay(Cast())


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("a.*", "a.b.c", True),
        ("a.?", "a.b", True),
        ("[!a]*", "b", True),
        ("A*", "a", False),
        ("a", "a.b", False),
        ("*", "", True),
    ],
)
def test_patterns(pattern: str, name: str, matches: bool) -> None:
    policy = ByName({pattern: LowRank()}, TwoWay(Cast()))
    assert policy.for_parameter(name, Spec((8, 8))) == (LowRank() if matches else TwoWay(Cast()))


@given(st.lists(st.integers(1, 50), unique=True, min_size=1, max_size=4), st.integers(0, 60))
def test_the_first_limit_above_the_size_chooses(limits: list[int], size: int) -> None:
    rules = [(limit, Warmup(i, Cast())) for i, limit in enumerate(sorted(limits))]
    expected = [compressor for limit, compressor in rules if size < limit] or [LowRank()]
    assert BySize(rules, LowRank()).for_parameter("x", Spec((size,))) == expected[0]


def test_the_number_of_dimensions_chooses() -> None:
    policy = ByDimension({4: LowRank(), 2: LowRank(rank=1)}, TwoWay(Cast()))
    found = [policy.for_parameter("x", Spec((2,) * n)) for n in range(6)]
    assert found == [TwoWay(Cast()), TwoWay(Cast()), LowRank(rank=1), TwoWay(Cast()), LowRank(), TwoWay(Cast())]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: type(p).__name__)
def test_every_parameter_travels_as_if_its_choice_were_alone(policy: Any, world_size: int) -> None:
    together = Simulator(policy, world_size, allow_larger=True)
    alone = {
        name: Simulator(policy.for_parameter(name, Spec(shape)), world_size, allow_larger=True)
        for name, shape in SHAPES.items()
    }
    for step in range(3):
        gradients = normal_gradients(world_size, step, SHAPES)
        means = together.step(NUMPY.arrays(gradients))
        for name, simulator in alone.items():
            (expected, *_) = simulator.step(NUMPY.arrays([{name: own[name]} for own in gradients]))
            assert all(bits(own[name]) == bits(expected[name]) for own in means)


def test_policies_within_policies_and_wrappers() -> None:
    policy = ErrorFeedback(Half(ByName({"head.*": ByDimension({1: Identity()}, LowRank(rank=1))}, LowRank(rank=2))))
    found = chosen(policy)
    assert found["encoder.weight"] == ErrorFeedback(Half(LowRank(rank=2)))
    assert found["head.weight"] == ErrorFeedback(Half(LowRank(rank=1)))
    assert "Identity" in repr(found["head.bias"])
    assert chosen(Warmup(3, policy))["head.weight"] == Warmup(3, ErrorFeedback(Half(LowRank(rank=1))))


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_a_joined_unit_beside_tensors(world_size: int) -> None:
    policy = ByName(
        {"encoder.*": Joined(TwoWay(Cast("bfloat16")), 1.0), "head.bias": Joined(Identity(), 1.0)}, LowRank()
    )
    simulator = Simulator(policy, world_size, allow_larger=True)
    gradients = normal_gradients(world_size, 0, SHAPES)
    means = simulator.step(NUMPY.arrays(gradients))
    units = {tuple(name for name, _ in unit.parameters): unit.operator for unit in simulator.plan.units}
    assert Joined(TwoWay(Cast("bfloat16")), 1.0) == units["encoder.weight", "encoder.bias"]
    assert Joined(Identity(), 1.0) == units[("head.bias",)]
    assert LowRank() == units[("head.weight",)]
    expected = average_models(gradients)
    assert_close(means[0]["head.bias"], expected["head.bias"], 1e-6)
    assert_close(means[0]["encoder.weight"], expected["encoder.weight"], 2e-2)
    assert all(bits(means[0][name]) == bits(own[name]) for own in means for name in SHAPES)
    assert simulator.sent_bytes == simulator.plan.wire_bytes(world_size)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: type(p).__name__)
def test_repr_makes_it_again(policy: Any) -> None:
    assert eval(repr(policy)) == policy
    assert hash(eval(repr(policy))) == hash(policy)
    assert type(policy)(dict(policy.rules), policy.otherwise) == policy


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: type(p).__name__)
def test_unresolved_it_refuses(policy: Any) -> None:
    spec = Spec((4, 4))
    ops = ops_of(NUMPY.array(0.0))
    for use in (
        lambda: policy.unit_bytes,
        lambda: policy.compresses(spec),
        lambda: policy.dense(spec),
        lambda: policy.leaves(spec, 2),
        lambda: policy.traffic(spec, 2, 0),
        lambda: policy.exchange(NUMPY.array([1.0]), {}, Context(ops, spec, "x", 0, 0, 2)),
    ):
        with pytest.raises(UsageError, match="for_parameter"):
            use()


@pytest.mark.parametrize(
    "make",
    [
        lambda: ByName({3: Cast()}, Cast()),
        lambda: ByName({"a": "fp16"}, Cast()),
        lambda: ByName({}, "fp16"),
        lambda: ByName("abc", Cast()),
        lambda: ByName(4, Cast()),
        lambda: BySize({2.5: Cast()}, Cast()),
        lambda: BySize(((10, Cast()), (5, Cast())), Cast()),
        lambda: ByDimension({-1: Cast()}, Cast()),
        lambda: ByDimension({True: Cast()}, Cast()),
    ],
)
def test_wrong_rules_are_refused(make: Any) -> None:
    with pytest.raises(ConfigurationError):
        make()


def test_what_any_choice_has_the_policy_has() -> None:
    assert ByName({"a": Momentum(Cast())}, Cast()).has_momentum
    assert not ByName({"a": Cast()}, LowRank()).has_momentum
    assert BySize({5: Cast()}, LocalWeightDecay(Cast(), 0.1)).needs_parameters
