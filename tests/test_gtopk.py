"""GTopK: pairs of ranks merge their largest elements, for any number of ranks, and nothing is lost on the way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import Library, assert_close, bits, whole, wide
from hypothesis import given
from hypothesis import strategies as st
from oracles.averaging import average
from oracles.collectives import lockstep
from oracles.feedback import with_feedback
from oracles.sparsifiers import gtopk

from hvd_compress import ConfigurationError, CorruptPayloadError, ErrorFeedback, GlobalTopK, GTopK, Simulator, Spec
from hvd_compress.contract import Context, Exchanged
from hvd_compress.operators.pairs import Pairs
from hvd_compress.operators.sparse_vector import SparseVector, held, merged
from hvd_compress.ops import ops_of

WORLDS = (1, 2, 3, 4, 5, 6, 7, 8, 11)


def outcomes_of(library: Library, xs: list[np.ndarray], k: int, feedback: bool = True) -> list[Exchanged]:
    """Return what every rank's exchange of a vector ends with."""
    size, ops = len(xs[0]), ops_of(library.array(0.0))
    operator, spec = GlobalTopK(k / size), Spec((size,), "float64")
    exchanges = [
        operator.exchange(library.array(x, "float64"), {}, Context(ops, spec, "w", 0, rank, len(xs), feedback=feedback))
        for rank, x in enumerate(xs)
    ]
    outcomes, asked = lockstep(exchanges)
    declared = operator.traffic(spec, len(xs), 0)
    assert [[tuple(a) for a in r] for r in asked] == [
        [(p.kind.__name__, p.count, p.dtype) for p in r] for r in declared
    ]
    return outcomes


def check_against_the_paper(library: Library, xs: list[np.ndarray], k: int) -> None:
    mean, contributions = gtopk(xs, k)
    outcomes = outcomes_of(library, xs, k)
    for outcome, x, sent in zip(outcomes, xs, contributions, strict=True):
        assert_close(outcome.mean, mean, 1e-14)
        assert_close(outcome.rest, x - sent, 1e-14)
        assert bits(outcome.mean) == bits(outcomes[0].mean)
        sent_from = set(whole(outcome.positions))
        assert set(np.flatnonzero(mean)) <= sent_from and len(sent_from) == k


@given(world=st.integers(1, 13), size=st.integers(1, 40), data=st.data(), seed=st.integers(0, 99))
@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_the_paper_for_any_number_of_ranks(name: str, world: int, size: int, data: Any, seed: int) -> None:
    k = data.draw(st.integers(1, size))
    xs = [np.random.default_rng([seed, rank]).standard_normal(size) for rank in range(world)]
    check_against_the_paper(Library(name), xs, k)


@pytest.mark.parametrize("world", WORLDS)
def test_similar_gradients_overlap(library: Library, world: int) -> None:
    """Most ranks choose the same elements: merges add up more than they drop."""
    base = np.random.default_rng(3).standard_normal(60)
    xs = [base + 0.3 * np.random.default_rng([4, rank]).standard_normal(60) for rank in range(world)]
    check_against_the_paper(library, xs, 6)


def vector(size: int, **elements: float) -> np.ndarray:
    x = np.zeros(size)
    for name, value in elements.items():
        x[int(name[1:])] = value
    return x


def test_an_element_that_was_dropped_comes_back_from_elsewhere(library: Library) -> None:
    """Ranks 0 and 1 drop element 2; ranks 2 and 3 bring it in. It is applied without rank 0's, which keeps its own."""
    xs = [vector(6, i2=1.0), vector(6, i3=5.0), vector(6, i2=9.0), vector(6, i4=0.5)]
    outcomes = outcomes_of(library, xs, 1)
    for outcome in outcomes:
        assert_close(outcome.mean, vector(6, i2=9.0 / 4), 0.0)
    assert_close(outcomes[0].rest, xs[0], 0.0)
    assert_close(outcomes[1].rest, xs[1], 0.0)
    assert_close(outcomes[2].rest, np.zeros(6), 0.0)
    assert_close(outcomes[3].rest, xs[3], 0.0)
    check_against_the_paper(library, xs, 1)


@pytest.mark.parametrize("world", [3, 5, 6, 7])
def test_a_guest_learns_what_became_of_its_elements(library: Library, world: int) -> None:
    """The last rank's element is dropped in the very first merge, in a later one, or never."""
    last, host = world - 1, world - 1 - 2 ** (world.bit_length() - 1)
    for own, hosts, others, applied in ((1.0, 5.0, 0.1, "host"), (3.0, 1.0, 7.0, "other"), (9.0, 1.0, 2.0, "guest")):
        xs = [vector(8, i3=others) if rank not in (last, host) else vector(8, i1=hosts) for rank in range(world)]
        xs[last] = vector(8, i2=own)
        check_against_the_paper(library, xs, 1)
        rest = wide(outcomes_of(library, xs, 1)[last].rest)
        assert (rest[2] == 0.0) == (applied == "guest")


def test_elements_that_cancel_are_sent_as_zero(library: Library) -> None:
    xs = [vector(5, i1=2.0, i3=1.0), vector(5, i1=-2.0, i4=0.5)]
    check_against_the_paper(library, xs, 2)
    assert_close(outcomes_of(library, xs, 2)[0].mean, vector(5, i3=0.5, i4=0.25), 0.0)


@pytest.mark.parametrize("world", WORLDS)
def test_ties_in_merges_are_broken_alike_on_all_ranks(library: Library, world: int) -> None:
    """Magnitudes are equal after the first choice: the lower position is kept, and nothing is lost."""
    xs = [np.zeros(30) for _ in range(world)]
    for rank, x in enumerate(xs):
        x[(3 * rank + np.array([0, 1, 2])) % 30] = [1.0, -1.0, 1.0]
    check_against_the_paper(library, xs, 3)


@pytest.mark.parametrize("world", WORLDS)
def test_all_elements_are_an_average(library: Library, world: int) -> None:
    xs = [np.random.default_rng([5, rank]).standard_normal(17) for rank in range(world)]
    for outcome in outcomes_of(library, xs, 17):
        assert_close(outcome.mean, average(xs), 1e-14)
        assert_close(outcome.rest, np.zeros(17), 0.0)


@pytest.mark.parametrize("world", [1, 2, 3, 4, 5, 7])
def test_the_method_is_error_feedback_around_it(library: Library, world: int) -> None:
    def compress(step: int, corrected: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        return gtopk(corrected, 8)

    assert GTopK(0.07, 5).expression() == ErrorFeedback(GlobalTopK(0.07, 5))
    steps = [
        [np.random.default_rng([6, step, rank]).standard_normal((12, 9)) for rank in range(world)] for step in range(6)
    ]
    updates, memories = with_feedback(compress, [[g.reshape(-1) for g in own] for own in steps], 1.0, 1.0)
    simulator = Simulator(GTopK(0.07, min_size=0), world, allow_larger=True)
    for own, update in zip(steps, updates, strict=True):
        means = simulator.step(library.arrays([{"w": g} for g in own], "float64"))
        assert_close(wide(means[0]["w"]).reshape(-1), update, 1e-12)
        assert len({bits(mean["w"]) for mean in means}) == 1
        assert np.count_nonzero(wide(means[0]["w"])) == 8
    for saved, memory in zip(simulator.state_dicts(), memories, strict=True):
        assert_close(wide(saved["units"]["w"]["leaves"]["error"]).reshape(-1), memory, 1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("world", [1, 2, 3, 5, 7])
def test_what_is_not_finite_reaches_every_rank(library: Library, world: int, bad: float) -> None:
    for poisoned in range(world):
        xs = [np.random.default_rng([7, rank]).standard_normal(20) for rank in range(world)]
        xs[poisoned][11] = bad
        with np.errstate(all="ignore"):
            outcomes = outcomes_of(library, xs, 2)
        assert all(not np.isfinite(wide(outcome.mean)).all() for outcome in outcomes)
        assert len({bits(outcome.mean) for outcome in outcomes}) == 1


@pytest.mark.parametrize("world", range(1, 34))
def test_pairs_are_mutual_and_reach_everybody(world: int) -> None:
    pairs = [Pairs(rank, world) for rank in range(world)]
    reached = [{rank} for rank in range(world)]
    for partners in [
        [p.host_or_guest for p in pairs],
        *([p.partner(j) for p in pairs] for j in range(pairs[0].rounds)),
    ]:
        assert all(partners[partners[rank]] == rank for rank in range(world))
        reached = [reached[rank] | reached[partner] for rank, partner in enumerate(partners)]
    hosts = [p for p in pairs if not p.is_guest]
    assert all(reached[p.rank] == set(range(world)) for p in hosts)
    assert len(hosts) == 2 ** pairs[0].rounds and len(hosts) + pairs[0].guests == world
    assert [p.rank for p in hosts if p.is_host] == list(range(pairs[0].guests))


@given(size=st.integers(1, 30), data=st.data())
@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_merging_and_membership(name: str, size: int, data: Any) -> None:
    k = data.draw(st.integers(1, size))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    library = Library(name)
    ops = ops_of(library.array(0.0))
    places = [rng.permutation(size)[:k] for _ in range(2)]
    values = [rng.standard_normal(k) for _ in range(2)]
    a, b = (SparseVector(ops.from_numpy(p), ops.from_numpy(v)) for p, v in zip(places, values, strict=True))
    both = {
        int(i): dict(zip(places[0], values[0], strict=True)).get(i, 0.0)
        + dict(zip(places[1], values[1], strict=True)).get(i, 0.0)
        for i in {*places[0], *places[1]}
    }
    best = sorted(both, key=lambda i: (-abs(both[i]), i))[:k]
    result = merged(a, b, ops)
    assert dict(zip(result.positions.tolist(), result.values.tolist(), strict=True)) == {i: both[i] for i in best}
    assert held(a.positions, result.positions, ops).tolist() == [int(i in best) for i in places[0]]


def test_what_it_sends() -> None:
    """(position + value) x k a round, log2 m rounds; two more, one with k bits, where W is no power of two."""
    spec, k = Spec((100, 100)), 100
    message = k * (2 + 4)
    for world, rounds, extra in (
        (1, 0, 0),
        (2, 1, 0),
        (4, 2, 0),
        (8, 3, 0),
        (3, 1, 13),
        (5, 2, 13),
        (7, 2, 13),
        (63, 5, 13),
    ):
        assert GlobalTopK(0.01).wire_bytes(spec, world) == rounds * message + (2 * message + extra if extra else 0)


def test_positions_that_cannot_be_are_refused(library: Library) -> None:
    ops = ops_of(library.array(0.0))
    x = library.array(np.arange(10.0))
    exchange = GlobalTopK(0.2).exchange(x, {}, Context(ops, Spec((10,)), "w", 0, 0, 2))
    positions, values = next(exchange)
    with pytest.raises(CorruptPayloadError):
        exchange.send([positions.array + 100, values.array])


@pytest.mark.parametrize("make", [lambda: GTopK(0.0), lambda: GTopK(1.1), lambda: GlobalTopK(min_size=-1)])
def test_settings_out_of_range(make: Any) -> None:
    with pytest.raises(ConfigurationError):
        make()
