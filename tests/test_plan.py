"""The plan: units and buckets from names, shapes and settings alone, and a digest that tells any difference."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hvd_compress import QSGD, Cast, ConfigurationError, Identity, LowRank, PowerSGD, Spec, TwoWay, Warmup
from hvd_compress.exchange import Plan, make_plan

PARAMETERS = [("a", Spec((8, 8))), ("b", Spec((8,))), ("c", Spec((8, 8))), ("d", Spec(()))]


def plan(
    compressor: Any = None, parameters: list[tuple[str, Spec]] = PARAMETERS, world_size: int = 2, **options: Any
) -> Plan:
    return make_plan(compressor or PowerSGD(rank=1), parameters, world_size, **options)


def test_the_same_settings_give_the_same_digest() -> None:
    assert plan().digest == plan().digest
    assert len(plan().digest) == 32


@pytest.mark.parametrize(
    "other",
    [
        plan(PowerSGD(rank=2)),
        plan(PowerSGD(rank=1, seed=1)),
        plan(PowerSGD(rank=1, warm_start=False)),
        plan(LowRank(rank=1)),
        plan(Cast()),
        plan(parameters=PARAMETERS[:-1]),
        plan(parameters=PARAMETERS[::-1]),
        plan(parameters=[("a", Spec((8, 9))), *PARAMETERS[1:]]),
        plan(parameters=[("a", Spec((8, 8), "float16")), *PARAMETERS[1:]]),
        plan(parameters=[("x", Spec((8, 8))), *PARAMETERS[1:]]),
        plan(parameters=[("a", Spec((8, 8), output_axis=-1)), *PARAMETERS[1:]]),
        plan(bucket_bytes=1),
        plan(groups=[["a", "d"]]),
        plan(settings={"average": True}),
    ],
    ids=[
        *("rank", "seed", "warm start", "method", "codec", "fewer", "order", "shape", "element type", "name"),
        *("layout", "buckets", "groups", "told"),
    ],
)
def test_any_difference_gives_another_digest(other: Plan) -> None:
    assert other.digest != plan().digest


def test_settings_are_told_apart_by_value() -> None:
    digests = {plan(settings=settings).digest for settings in ({}, {"op": "sum"}, {"op": "mean"}, {"world": "mean"})}
    assert len(digests) == 4


def test_a_name_that_is_used_twice_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'a' is used twice"):
        plan(parameters=[*PARAMETERS, ("a", Spec((2,)))])


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8"])
def test_a_gradient_that_is_no_floating_point_number_is_refused_by_name(dtype: str) -> None:
    with pytest.raises(ConfigurationError, match=f"'steps' is {dtype}"):
        plan(parameters=[*PARAMETERS, ("steps", Spec((2,), dtype))])


def test_an_unknown_element_type_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'complex64'"):
        Spec((2,), "complex64")


def test_units_are_the_parameters_in_order_and_say_how_they_travel() -> None:
    units = plan().units
    assert [unit.name for unit in units] == ["a", "b", "c", "d"]
    assert [unit.dense for unit in units] == [False, True, False, True]
    assert [unit.spec for unit in units] == [spec for _, spec in PARAMETERS]
    assert units[0].operator == PowerSGD(rank=1)


def test_a_codec_travels_as_it_can() -> None:
    """float16 by allreduce; bfloat16, whose bits cannot be summed, by shards; and dense bfloat16 gradients likewise."""
    (half,) = plan(Cast(), [("w", Spec((4,)))]).units
    (brain,) = plan(Cast("bfloat16"), [("w", Spec((4,)))]).units
    (dense,) = plan(PowerSGD(), [("w", Spec((4,), "bfloat16"))]).units
    assert [type(unit.operator).__name__ for unit in (half, brain, dense)] == ["AllReduce", "TwoWay", "TwoWay"]


def names_by_bucket(made: Plan) -> list[list[str]]:
    return [[made.units[i].name for i in bucket] for bucket in made.buckets]


@pytest.mark.parametrize(
    ("bucket_bytes", "expected"),
    [
        (math.inf, [["a", "b", "c", "d"]]),
        (1, [["a"], ["b"], ["c"], ["d"]]),
        (256, [["a"], ["b", "c"], ["d"]]),
        (257, [["a", "b"], ["c", "d"]]),
        (0, [["a"], ["b"], ["c"], ["d"]]),
    ],
)
def test_a_bucket_closes_once_it_is_full(bucket_bytes: float, expected: list[list[str]]) -> None:
    assert names_by_bucket(plan(bucket_bytes=bucket_bytes, world_size=1)) == expected


@pytest.mark.parametrize("compressor", [Identity(), Cast(), QSGD(), PowerSGD(rank=2), Warmup(10, PowerSGD(rank=2))])
@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_a_bucket_closes_once_it_sends_enough_for_the_link_to_be_busy(compressor: Any, world_size: int) -> None:
    """Each may send twice as much as the one before; of gradients all may hold as much. No unit more is in it."""
    shapes = [(64, 64), (64,), (7, 900), (300, 20), (3, 3), (200, 300), (5000,), (100, 100), (20, 20)]
    parameters = [(str(i), Spec(shape)) for i, shape in enumerate(shapes)]
    for bucket_bytes in (1e4, 1e5, 1e6):
        made = plan(compressor, parameters, world_size, bucket_bytes=bucket_bytes)
        most = bucket_bytes / 25
        for bucket in made.buckets:
            units = [made.units[i] for i in bucket]
            held = [sum(unit.spec.nbytes for unit in units[:n]) for n in range(len(units) + 1)]
            sent = [
                sum(unit.operator.wire_bytes(unit.spec, world_size, 1000) for unit in units[:n])
                for n in range(len(units) + 1)
            ]
            assert held[-2] < bucket_bytes
            assert sent[-2] < most
            assert held[-1] >= bucket_bytes or sent[-1] >= most or bucket == made.buckets[-1]
            most *= 2


def test_every_unit_is_in_one_bucket() -> None:
    for options in (
        {"bucket_bytes": 300},
        {"groups": [["d", "a"]], "bucket_bytes": 1},
        {"groups": [["b"], ["c", "a"]]},
    ):
        made = plan(**options)
        assert sorted(i for bucket in made.buckets for i in bucket) == [0, 1, 2, 3]


def test_groups_travel_together_whatever_the_bucket_size() -> None:
    assert names_by_bucket(plan(groups=[["a", "d"]], bucket_bytes=1)) == [["a", "d"], ["b"], ["c"]]
    assert names_by_bucket(plan(groups=[["c"], ["a", "b"]])) == [["a", "b"], ["c"], ["d"]]


def test_the_description_says_what_travels_how() -> None:
    lines = plan(settings={"op": "Average"}).description.splitlines()
    assert "compression=PowerSGD(rank=1)" in lines
    assert "op=Average" in lines
    assert any("[8, 8] float32" in line and line.startswith("a") for line in lines)


def test_wire_bytes_are_the_sum_over_units() -> None:
    made = plan(TwoWay(Cast()))
    assert made.wire_bytes(4) == sum(unit.operator.wire_bytes(unit.spec, 4) for unit in made.units)
    assert made.wire_bytes(1) == 0


def test_a_plan_of_nothing() -> None:
    made = plan(parameters=[])
    assert (made.units, made.buckets, made.wire_bytes(2)) == ((), (), 0)
