"""ScaleCom is the paper's algorithm: it follows the float64 transcription, whatever is asked of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import NUMPY, TORCH, Library, assert_close, bits, dtype_of, wide
from hypothesis import example, given
from hypothesis import strategies as st
from oracles.averaging import average
from oracles.collectives import Asked, lockstep
from oracles.scalecom import clt_indices_chunked, clt_indices_exact, scalecom

from hvd_compress import ConfigurationError, CorruptPayloadError, CyclicTopK, ErrorFeedback, ScaleCom, Simulator, Spec
from hvd_compress.contract import Context, Exchanged, Operator, initial_state
from hvd_compress.ops import ops_of

WORLDS = (1, 2, 3, 4, 5, 7)
STEPS = 9
# Multiples of nothing, fewer chunks than workers, fewer elements than workers.
SIZES = (60, 61, 13, 5, 3, 1)
KINDS = ("chunked", "exact")


def vectors(world: int, step: int, size: int, seed: int = 0) -> list[np.ndarray]:
    return [np.random.default_rng([seed, step, rank]).standard_normal(size) for rank in range(world)]


def paper_choice(kind: str, chunk: int, world: int) -> Any:
    """Return the oracle's choice of coordinates."""
    if kind == "chunked":
        return lambda step, ps: clt_indices_chunked(ps, step, chunk, world)
    return lambda step, ps: clt_indices_exact(ps, step, -(-ps[0].size // chunk), world)


class Workers:
    """One tensor over W workers, with no driver in between."""

    def __init__(self, operator: Operator, world: int, library: Library = NUMPY, dtype: str = "float64") -> None:
        self.operator, self.world, self.library, self.dtype = operator, world, library, dtype
        self.states: list[Any] = []
        self.taken = 0

    def step(self, gradients: list[np.ndarray]) -> list[Exchanged]:
        arrays = [self.library.array(g, self.dtype) for g in gradients]
        ops, spec = ops_of(arrays[0]), Spec(gradients[0].shape, self.dtype)
        self.states = self.states or [initial_state(self.operator.leaves(spec, self.world), ops, "w") for _ in arrays]
        outcomes, self.asked = lockstep(
            [
                self.operator.exchange(x, state, Context(ops, spec, "w", self.taken, rank, self.world, feedback=True))
                for rank, (x, state) in enumerate(zip(arrays, self.states, strict=True))
            ]
        )
        self.states = [outcome.state for outcome in outcomes]
        self.taken += 1
        return outcomes

    @property
    def memories(self) -> list[np.ndarray]:
        return [wide(state["error"]) for state in self.states]


def follow(
    compressor: ScaleCom, choice: Any, world: int, size: int, library: Library = NUMPY, dtype: str = "float64"
) -> None:
    """Check updates and memories of every step against the transcription; the paper's low-pass h is beta x ours."""
    workers = Workers(compressor, world, library, dtype)
    gradients = [vectors(world, step, size) for step in range(STEPS)]
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    for step in range(STEPS):
        outcomes = workers.step(gradients[step])
        paper = scalecom(gradients[: step + 1], choice, compressor.beta, compressor.filter)
        scale = compressor.beta if compressor.filter == "low-pass" else 1.0
        assert_close(outcomes[0].mean, paper.updates[-1], tolerance, scale=4.0)
        for mine, theirs in zip(workers.memories, paper.memories, strict=True):
            assert_close(scale * mine, theirs, tolerance, scale=10.0)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_the_paper(kind: Any, size: int, world: int) -> None:
    follow(ScaleCom(4, selection=kind, min_size=0), paper_choice(kind, 4, world), world, size)


@pytest.mark.parametrize("world", (1, 2, 3, 5))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beta", [0.1, 0.5])
@pytest.mark.parametrize("filter", ["low-pass", "forgetting", "literal"])
def test_filters(filter: Any, beta: float, kind: Any, world: int) -> None:
    follow(ScaleCom(6, beta, filter, kind, min_size=0), paper_choice(kind, 6, world), world, 61)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_on_both_libraries(library: Library, kind: Any, dtype: str) -> None:
    follow(ScaleCom(7, 0.3, selection=kind, min_size=0), paper_choice(kind, 7, 3), 3, 61, library, dtype)


@given(
    size=st.integers(1, 90),
    world=st.integers(1, 9),
    chunk=st.integers(1, 40),
    step=st.integers(0, 20),
    kind=st.sampled_from(KINDS),
)
@example(size=13, world=5, chunk=1, step=2, kind="exact")  # the last shard has less than its share of the top k
def test_all_ranks_send_the_same_elements(size: int, world: int, chunk: int, step: int, kind: Any) -> None:
    """Each named once, as the paper's leaders choose; as many as shapes say, and the rest is what is not sent."""
    operator, spec, ps = CyclicTopK(chunk, kind, min_size=0), Spec((size,), "float64"), vectors(world, step, size)
    workers = Workers(operator, world)
    workers.taken = step
    outcomes = workers.step(ps)
    positions = [np.sort(np.asarray(outcome.positions)) for outcome in outcomes]
    assert all(np.array_equal(own, positions[0]) for own in positions)
    assert np.array_equal(positions[0], np.sort(paper_choice(kind, chunk, world)(step, ps)))
    assert positions[0].size == operator.traffic(spec, world, step)[1][0].count >= min(size, -(-size // chunk))
    assert len({bits(outcome.mean) for outcome in outcomes}) == 1
    for p, outcome in zip(ps, outcomes, strict=True):
        unsent = p.copy()
        unsent[positions[0]] = 0.0
        assert np.array_equal(outcome.rest, unsent)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("world", WORLDS)
def test_selection_commutes_with_the_mean(kind: Any, world: int) -> None:
    """Mean CLT(x_j) = CLT(mean x_j), exactly: whole numbers, and the leader's choice for both."""
    xs = [np.round(100 * x) * world for x in vectors(world, 0, 61)]
    outcome = Workers(CyclicTopK(5, kind, min_size=0), world).step(xs)[0]
    of_mean, chosen = np.zeros(61), np.asarray(outcome.positions)
    of_mean[chosen] = np.mean(xs, axis=0)[chosen]
    each = np.zeros((world, 61))
    each[:, chosen] = np.array(xs)[:, chosen]
    assert np.array_equal(outcome.mean, of_mean)
    assert np.array_equal(outcome.mean, each.mean(axis=0))


@pytest.mark.parametrize("world", WORLDS)
def test_every_rank_leads_every_shard_once_in_world_steps(world: int) -> None:
    """Rank r's largest element of a chunk is its r-th: what was sent tells who chose."""
    chunk, size = 8, 8 * 11 + 7
    workers = Workers(CyclicTopK(chunk, min_size=0), world)
    xs = [np.array([10.0 if i % chunk == rank else 1.0 for i in range(size)]) for rank in range(world)]
    leaders = np.array([np.asarray(workers.step(xs)[0].positions) % chunk for _ in range(2 * world)])
    for of_chunk in leaders.T:
        assert sorted(of_chunk[:world]) == list(range(world))
        assert np.array_equal(of_chunk[:world], of_chunk[world:])
    shards = -(-12 // -(-12 // world))
    assert len(set(leaders[0])) == shards, "shards are led by different ranks"


@pytest.mark.parametrize("beta", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("world", WORLDS)
def test_sending_everything_is_averaging_for_any_filter(kind: Any, beta: float, world: int) -> None:
    workers = Workers(ErrorFeedback(CyclicTopK(1, kind, min_size=0), beta, 1.0), world)
    for step in range(4):
        gradients = vectors(world, step, 13)
        assert_close(workers.step(gradients)[0].mean, average(gradients), 1e-15, scale=4.0)
        assert not any(memory.any() for memory in workers.memories)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beta", [0.1, 0.4, 1.0])
def test_nothing_is_lost_and_what_is_sent_keeps_a_share(kind: Any, beta: float) -> None:
    """In the paper's scale: sum(g) - sum(sent) = h/beta per worker; sent coordinates keep (1 - beta) h."""
    world, size = 3, 61
    workers = Workers(ScaleCom(5, beta, selection=kind, min_size=0), world)
    owed = np.zeros((world, size))
    papers = np.zeros((world, size))
    for step in range(STEPS):
        gradients = vectors(world, step, size)
        chosen = np.asarray(workers.step(gradients)[0].positions)
        sent = np.zeros((world, size))
        sent[:, chosen] = (np.array(gradients) + papers)[:, chosen]
        owed += np.array(gradients) - sent
        before, papers = papers, beta * np.array(workers.memories)
        assert_close(owed, papers / beta, 1e-12, scale=10.0)
        assert_close(papers[:, chosen], (1 - beta) * before[:, chosen], 1e-12, scale=10.0)
    assert np.abs(before[:, chosen]).max() > 0


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(
    ("chunk", "kind", "dtype", "index"),
    [
        (100, "chunked", "float32", "uint8"),
        (256, "chunked", "float16", "uint8"),
        (257, "chunked", "float32", "int16"),
        (40000, "chunked", "float64", "int32"),
        (100, "exact", "float32", "int32"),
    ],
)
def test_traffic_does_not_grow_with_the_number_of_workers(
    world: int, chunk: int, kind: Any, dtype: str, index: str
) -> None:
    """One position in its chunk and one value a chunk; a padded share of the positions from every rank."""
    size = 1_234_567
    chosen = -(-size // chunk)
    (indices,), (values,) = CyclicTopK(chunk, kind).traffic(Spec((size,), dtype), world, 3)
    assert (indices.kind.__name__, indices.count, indices.dtype) == ("AllGather", -(-chosen // world), index)
    assert values.kind.__name__ == "Mean"
    assert values.dtype == ("float64" if dtype == "float64" else "float32")
    assert values.count == chosen if kind == "chunked" else chosen <= values.count < chosen + world


def test_bytes_are_those_of_positions_and_values() -> None:
    """Sent by a worker: (W-1)/W (n + 2 x 4 n) for n values, W dividing n."""
    for world in (2, 4, 5, 10):
        simulator = Simulator(ScaleCom(100), world)
        simulator.step([{"w": np.ones(100_000, np.float32)}] * world)
        assert simulator.sent_bytes == (world - 1) * 9 * 1000 // world


@pytest.mark.parametrize("kind", KINDS)
def test_contraction_on_average(kind: Any) -> None:
    """The mean loses no more than under a random choice, and the less the more alike the workers are."""
    world, size, chunk = 4, 400, 10
    lost = []
    for noise in (100.0, 1.0, 0.0):
        shares = []
        for seed in range(20):
            shared = vectors(1, 0, size, 50 + seed)[0]
            xs = [shared + noise * own for own in vectors(world, 0, size, seed)]
            mean = Workers(CyclicTopK(chunk, kind, min_size=0), world).step(xs)[0].mean
            y = average(xs)
            shares.append(np.sum((y - mean) ** 2) / np.sum(y**2))
        lost.append(np.mean(shares))
    assert lost[0] < 1 - 1 / chunk
    assert lost[0] > lost[1] > lost[2]


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_a_number_that_is_not_finite_is_seen_wherever_it_is(kind: Any, poison: float) -> None:
    """On any rank, at any place, also where its leader sends something else; and it is gone with its step."""
    world, size = 3, 14
    for rank in range(world):
        for place in range(size):
            simulator = Simulator(ScaleCom(4, 0.5, selection=kind, min_size=0), world, allow_larger=True)
            for step in range(3):
                gradients = [{"w": x} for x in vectors(world, step, size)]
                if step == 1:
                    gradients[rank]["w"][place] = poison
                with np.errstate(all="ignore"):
                    means = simulator.step(gradients)
                assert [np.isfinite(own["w"]).all() for own in means] == [step != 1] * world
                for saved in simulator.state_dicts():
                    assert np.isfinite(saved["units"]["w"]["leaves"]["error"]).all()


@pytest.mark.parametrize(("row", "place", "value"), [(0, 0, 8), (1, 0, 255), (1, 0, 5), (1, 1, 200)])
def test_received_positions_are_checked(row: int, place: int, value: int) -> None:
    """20 elements in chunks of 8 over two shards: the last chunk has 4, and after it comes a slot of padding."""
    spec, grad = Spec((20,), "float64"), np.arange(20.0)
    exchange = CyclicTopK(8, min_size=0).exchange(grad, {}, Context(ops_of(grad), spec, "w", 0, 0, 2, feedback=True))
    asked = next(exchange)
    gathered = np.array([[7, 7], [3, 0]], np.uint8)
    assert asked[0].array.shape == (2,)
    gathered[row, place] = value
    if (row, place) == (1, 1):  # nobody looks at padding
        (values, _) = exchange.send([gathered, 0.0])
        assert np.array_equal(values.array, [7.0, 15.0, 19.0])
        return
    with pytest.raises(CorruptPayloadError):
        exchange.send([gathered, 0.0])


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_is_averaged_in_float32(kind: Any) -> None:
    """The mean of 1 and 1 + 2^-6 is no bfloat16 sum of halves, and comes back in the gradient's element type."""
    gradients = [{"w": TORCH.array(np.full(32, x), "bfloat16")} for x in (1.0, 1.0 + 2.0**-6)]
    mean = Simulator(CyclicTopK(4, kind, min_size=0), 2).step(gradients)[0]["w"]
    assert dtype_of(mean) == "bfloat16"
    assert set(wide(mean)) == {0.0, 1.0 + 2.0**-7}


def test_layers_may_have_ratios_of_their_own() -> None:
    method = ScaleCom(8, chunks={"conv*": 2, "*.first": 1}, min_size=16)
    shapes = {"conv.first": (64,), "fc": (64,), "fc.first": (64,), "bias": (15,)}
    simulator = Simulator(method, 2)
    means = simulator.step([{name: np.ones(shape) for name, shape in shapes.items()}] * 2)[0]
    assert {name: int(x.sum()) for name, x in means.items()} == {"conv.first": 32, "fc": 8, "fc.first": 64, "bias": 15}
    assert eval(repr(method)) == method == ScaleCom(8, chunks=(("conv*", 2), ("*.first", 1)), min_size=16)


def test_warm_up_is_dense_and_leaves_no_memory() -> None:
    simulator = Simulator(ScaleCom(4, start_after=2, min_size=0), 2)
    for step in range(4):
        gradients = vectors(2, step, 40)
        mean = simulator.step([{"w": x} for x in gradients])[0]["w"]
        assert np.count_nonzero(mean) == (40 if step < 2 else 10)
        if step < 2:
            assert_close(mean, average(gradients), 1e-15, scale=4.0)
            assert not any(saved["units"]["w"]["leaves"]["error"].any() for saved in simulator.state_dicts())


def test_rounds_are_two() -> None:
    workers = Workers(CyclicTopK(4, min_size=0), 3, dtype="float32")
    workers.step(vectors(3, 0, 61))
    assert workers.asked == [[Asked("AllGather", 6, "uint8")], [Asked("Mean", 16, "float32")]]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"chunk": 0}, "chunk=0"),
        ({"chunk": 2.5}, "chunk=2.5"),
        ({"beta": 0.0}, "beta=0.0"),
        ({"beta": 1.5}, "beta=1.5"),
        ({"filter": "high-pass"}, "filter='high-pass'"),
        ({"selection": "random"}, "selection='random'"),
        ({"start_after": -1}, "start_after=-1"),
        ({"min_size": -1}, "min_size=-1"),
        ({"chunks": 4}, "chunks=4"),
        ({"chunks": (("conv", 0),)}, "chunk=0"),
        ({"chunks": ((3, 4),)}, "3"),
    ],
    ids=str,
)
def test_settings_out_of_range(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        ScaleCom(**settings)
    assert said in str(raised.value)
