"""Random-k and random blocks: all ranks draw alike, send values only, and hide nothing that is not finite."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from cases import Library, assert_close, wide
from oracles.averaging import average

from hvd_compress import RandomBlock, RandomK, Simulator, Spec
from hvd_compress.codecs.selection import alarm
from hvd_compress.contract import Context
from hvd_compress.ops import ops_of

OPS = ops_of(np.zeros(1))


def normal(*key: int, shape: Any = (12, 9)) -> np.ndarray:
    return np.random.default_rng([31, *key]).standard_normal(shape)


def gradients(world: int, step: int, shape: tuple[int, ...] = (12, 9)) -> list[dict[str, np.ndarray]]:
    return [{"w": normal(step, rank, shape=shape)} for rank in range(world)]


@pytest.mark.parametrize("kind", [RandomK, RandomBlock])
def test_draws_depend_on_seed_name_and_step_alone(kind: Any) -> None:
    def draw(seed: int, name: str, step: int, rank: int = 0) -> list[int]:
        return kind(0.1, seed).draw(11, Context(OPS, Spec((12, 9)), name, step, rank, 4)).tolist()  # type: ignore[no-any-return]

    assert draw(0, "w", 3, rank=0) == draw(0, "w", 3, rank=3)
    different = [draw(0, "w", 3), draw(1, "w", 3), draw(0, "v", 3), draw(0, "w", 4)]
    assert len({tuple(d) for d in different}) == 4


def test_a_block_goes_on_from_the_start_past_the_end() -> None:
    starts = set()
    for step in range(200):
        drawn = RandomBlock(0.4).draw(4, Context(OPS, Spec((2, 5)), "w", step, 0, 1)).tolist()
        assert drawn == [(drawn[0] + i) % 10 for i in range(4)]
        starts.add(drawn[0])
    assert starts == set(range(10))


@pytest.mark.parametrize("kind", [RandomK, RandomBlock])
def test_every_element_is_drawn_equally_often(kind: Any) -> None:
    counts = np.zeros(20)
    for step in range(2000):
        counts[kind(0.25).draw(5, Context(OPS, Spec((4, 5)), "w", step, 0, 1))] += 1
    assert np.abs(counts - 500).max() < 5 * np.sqrt(2000 * 0.25 * 0.75)


@pytest.mark.parametrize("kind", [RandomK, RandomBlock])
def test_shared_positions_are_linear_and_send_values_only(library: Library, kind: Any, world_size: int) -> None:
    operator = kind(0.1, min_size=0)
    many, one = Simulator(operator, world_size), Simulator(operator, 1)
    for step in range(3):
        everyone = gradients(world_size, step)
        mean = many.step(library.arrays(everyone, "float64"))[0]["w"]
        alone = one.step(library.arrays([{"w": average([own["w"] for own in everyone])}], "float64"))[0]["w"]
        assert np.count_nonzero(wide(mean)) == 11
        assert_close(mean, alone, 1e-13)
    assert operator.wire_bytes(Spec((12, 9)), 4) == 2 * 3 * 11


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("operator", [RandomK(0.01, min_size=0), RandomBlock(0.01, min_size=0)], ids=repr)
def test_elements_that_are_not_sent_are_seen_if_not_finite(library: Library, operator: Any, bad: float) -> None:
    for step in range(3):
        everyone = gradients(2, step)
        everyone[1]["w"][step, 7] = bad
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            means = Simulator(operator, 2).step(library.arrays(everyone))
        assert not any(np.isfinite(wide(mean["w"])).all() for mean in means)


def test_large_finite_numbers_raise_no_alarm(library: Library) -> None:
    x = library.array(np.full(1000, 3e38))
    assert float(alarm(x, ops_of(x))) == 0.0
