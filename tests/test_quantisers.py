"""QSGD, TernGrad and natural rounding: unbiased, with the papers' variance, in as many bits as they say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from cases import NUMPY, Library, assert_close, bits, normal_gradients, wide
from hypothesis import given
from hypothesis import strategies as st
from oracles import quantisers as oracle

from hvd_compress import (
    ECQSGD,
    QSGD,
    AllGather,
    Codec,
    ConfigurationError,
    ErrorFeedback,
    Natural,
    Scaled,
    Simulator,
    Spec,
    TernGrad,
    TwoWay,
)
from hvd_compress.ops import ops_of

DRAWS = 400
# Lengths that fill neither a byte nor a bucket, one element that is large, and a bucket of zeros.
X = np.concatenate([np.random.default_rng(3).standard_normal(21), np.zeros(10), [40.0, 1e-3, -7.0]])
UNBIASED = [QSGD(bucket=10), QSGD(levels=1, bucket=10, norm="max"), QSGD(levels=127), TernGrad(clip=0.0), Natural()]
CODECS = [*UNBIASED, TernGrad(), TernGrad(clip=1.0)]


def decoded(codec: Codec, x: np.ndarray, library: Library = NUMPY, dtype: str = "float64", key: Any = ()) -> np.ndarray:
    array = library.array(x, dtype)
    spec, ops = Spec(x.shape, dtype), ops_of(array)
    return wide(codec.decode(codec.encode(array, ops, key), spec, ops))


def uniforms(size: int, key: Any = (), dtype: str = "float64") -> np.ndarray:
    return wide(ops_of(np.zeros(1)).uniform((size,), dtype, key))


def thresholds(size: int, key: Any = ()) -> np.ndarray:
    return wide(ops_of(np.zeros(1)).thresholds("float64", key)(0, size))


def drawn(codec: Codec, size: int, key: Any = ()) -> np.ndarray:
    """Return the numbers that the codec rounds by."""
    return uniforms(size, key) if isinstance(codec, Natural) else thresholds(size, key)


def of_oracle(codec: Codec, x: np.ndarray, u: np.ndarray) -> np.ndarray:
    if isinstance(codec, QSGD):
        return oracle.qsgd(x, codec.levels, codec.bucket, u, codec.norm)
    return oracle.terngrad(x, u, codec.clip) if isinstance(codec, TernGrad) else oracle.natural(x, u)


def draws(codec: Codec, x: np.ndarray, count: int = DRAWS) -> np.ndarray:
    return np.stack([decoded(codec, x, key=("w", step, 0)) for step in range(count)])


def all_values(codec: Codec, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the values below and above that each element may become, however likely."""
    if isinstance(codec, Natural):
        return oracle.natural(x, np.full(x.shape, 1.0)), oracle.natural(x, np.zeros(x.shape))
    ends = [of_oracle(codec, x, np.full(x.shape, u)) for u in (0.0, 1.0 - 2.0**-24)]
    return ends[0], ends[1]


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_it_is_what_the_paper_says(library: Library, codec: Codec) -> None:
    for step in range(5):
        key = ("w", step, 1)
        assert_close(decoded(codec, X, library, key=key), of_oracle(codec, X, drawn(codec, X.size, key)), 1e-12)


@given(
    size=st.integers(1, 40),
    bucket=st.integers(1, 12),
    levels=st.integers(1, 127),
    norm=st.sampled_from(["l2", "max"]),
    seed=st.integers(0, 99),
)
@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_any_length_bucket_and_levels(name: str, size: int, bucket: int, levels: int, norm: Any, seed: int) -> None:
    codec = QSGD(levels, bucket, norm)
    x = np.random.default_rng(seed).standard_normal(size)
    expected = oracle.qsgd(x, levels, bucket, thresholds(size, ("w", seed)), norm)
    assert_close(decoded(codec, x, Library(name), key=("w", seed)), expected, 1e-12)
    packed, norms = codec.payload(Spec((size,)))
    assert packed == (-(-size // 8) * math.ceil(math.log2(2 * levels + 1)), "uint8")
    assert norms == (-(-size // bucket), "float32")


@pytest.mark.parametrize("codec", UNBIASED, ids=repr)
def test_unbiased(codec: Codec) -> None:
    """The mean over draws is x, within five standard errors and the weight of one draw."""
    low, high = all_values(codec, X)
    made = draws(codec, X)
    between = np.minimum(np.abs(made - low), np.abs(made - high))
    assert np.all(between <= 1e-9 * np.abs(X).max()), "each element becomes a neighbour"
    error = np.abs(made.mean(axis=0) - X)
    deviation = np.sqrt(np.abs((X - low) * (high - X)) / DRAWS)
    assert np.all(error <= 5 * deviation + np.abs(high - low) / DRAWS + 1e-9)


@pytest.mark.parametrize("codec", UNBIASED, ids=repr)
@pytest.mark.parametrize("kind", ["normal", "equal", "one large", "sparse"])
def test_variance_is_bounded(codec: Any, kind: str) -> None:
    n = 30
    x = {
        "normal": np.random.default_rng(0).standard_normal(n),
        "equal": np.full(n, 0.3),
        "one large": np.concatenate([[1.0], np.full(n - 1, n**-0.5)]),
        "sparse": np.where(np.arange(n) % 7 == 0, 1.0, 0.0),
    }[kind]
    squares = np.sum((draws(codec, x) - x) ** 2, axis=1)
    allowed = (codec.variance_factor(Spec((n,))) - 1.0) * np.sum(x**2)
    if isinstance(codec, QSGD):
        own = min(n, codec.bucket)
        assert allowed <= (min(own / codec.levels**2, math.sqrt(own) / codec.levels) + 1e-12) * np.sum(x**2)
    assert squares.mean() <= allowed + 5 * squares.std() / math.sqrt(DRAWS)


def test_the_bounds_that_are_reached() -> None:
    """TernGrad at its worst: one element of 1, others of 1 / (1 + sqrt(n)); natural rounding: 4/3 of a power of two."""
    n = 25
    x = np.concatenate([[1.0], np.full(n - 1, 1.0 / (1.0 + math.sqrt(n)))])
    assert np.abs(x).max() * np.abs(x).sum() == pytest.approx(
        TernGrad(clip=0.0).variance_factor(Spec((n,))) * np.sum(x**2)
    )
    y = np.full(n, 4.0 / 3.0)
    low, high = all_values(Natural(), y)
    assert np.sum((y - low) * (high - y)) == pytest.approx((Natural().variance_factor(Spec((n,))) - 1) * np.sum(y**2))


@pytest.mark.parametrize("codec", UNBIASED, ids=repr)
def test_divided_by_its_variance_factor_it_is_a_contraction(codec: Any) -> None:
    w = codec.variance_factor(Spec(X.shape))
    lost = np.sum((draws(Scaled(codec, 1.0 / w), X) - X) ** 2, axis=1)
    assert lost.mean() <= (1 - 1 / w) * np.sum(X**2) + 5 * lost.std() / math.sqrt(DRAWS)


@pytest.mark.parametrize("codec", CODECS, ids=repr)
@pytest.mark.parametrize("power", [-100, 83])
def test_no_magnitude_is_too_small_or_too_large(library: Library, codec: Codec, power: int) -> None:
    """From 1e-30 to 1e25 squares leave float32; levels do not change, bit for bit."""
    x = np.float32(X)
    plain, scaled = (decoded(codec, y, library, "float32") for y in (x, np.ldexp(x, power)))
    assert np.array_equal(np.ldexp(plain, power), scaled)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_on_the_grid_is_exact(library: Library, dtype: str) -> None:
    grid = np.concatenate([np.arange(-7.0, 8.0), [7.0, 0.0, -3.0]])
    for step in range(20):
        assert np.array_equal(decoded(QSGD(7, 6, "max"), grid, library, dtype, (step,))[-6:], grid[-6:])
        assert np.array_equal(decoded(QSGD(7, 99, "max"), grid, library, dtype, (step,)), grid)
        assert np.array_equal(decoded(QSGD(1, 1), X, library, dtype, (step,)), wide(library.array(X, dtype)))
        ternary = np.array([0.3, -0.3, 0.0, 0.0, 0.3])
        assert np.array_equal(
            decoded(TernGrad(clip=0.0), ternary, library, dtype, (step,)), wide(library.array(ternary, dtype))
        )
        powers = np.array([1.0, -0.5, 2.0**-126, 2.0**100, 0.0])
        assert np.array_equal(decoded(Natural(), powers, library, dtype, (step,)), powers)


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_other_keys_are_other_draws(library: Library, codec: Codec) -> None:
    x = np.random.default_rng(1).standard_normal(200)
    first = bits(decoded(codec, x, library, key=("w", 0, 0)))
    assert bits(decoded(codec, x, library, key=("w", 0, 0))) == first
    for key in (("v", 0, 0), ("w", 1, 0), ("w", 0, 1), ("w", 0, 0, 1), ("w", 0, 0, "server")):
        assert bits(decoded(codec, x, library, key=key)) != first


def test_ranks_and_shards_draw_their_own() -> None:
    """Equal gradients on four ranks, equal in all four shards, do not become equal numbers."""
    shard = np.concatenate([[1.0], np.full(19, 0.5)])
    gradients = [{"w": np.tile(shard, 4)} for _ in range(4)]
    gathered = Simulator(AllGather(TernGrad(clip=0.0)), 4, allow_larger=True).step(gradients)[0]["w"]
    assert set(np.unique(gathered)) > {0.25, 0.5, 0.75}
    served = Simulator(TwoWay(TernGrad(clip=0.0)), 4, allow_larger=True).step(gradients)[0]["w"].reshape(4, 20)
    assert len({row.tobytes() for row in served}) == 4


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_seen(library: Library, poison: float) -> None:
    """In its own bucket of QSGD, and in all of a TernGrad; natural rounding keeps it where it is."""
    x = X.copy()
    x[13] = poison
    with np.errstate(all="ignore"):
        for norm in ("l2", "max"):
            made = decoded(QSGD(7, 10, norm), x, library, "float32")
            assert np.isnan(made[10:20]).all()
            assert np.isfinite(np.delete(made, np.arange(10, 20))).all()
        for clip in (0.0, 2.5):
            assert np.isnan(decoded(TernGrad(clip), x, library, "float32")).all()
        made = decoded(Natural(), x, library, "float32")
    assert not np.isfinite(made[13])
    assert np.isfinite(np.delete(made, 13)).all()


def test_clipping_leaves_a_constant_and_a_single_element_alone(library: Library) -> None:
    for x in (np.full(1000, 0.1), np.full(3, -7.0), np.array([2.5]), np.array(2.5)):
        assert np.array_equal(
            decoded(TernGrad(clip=2.5), x, library, "float32"), wide(library.array(x)), equal_nan=False
        )


def test_clipping_cuts_outliers(library: Library) -> None:
    x = np.concatenate([np.random.default_rng(5).standard_normal(999), [1000.0]])
    made = decoded(TernGrad(clip=2.5), x, library)
    assert np.abs(made).max() == pytest.approx(2.5 * np.std(x))


def test_natural_rounding_at_the_ends_of_the_range(library: Library) -> None:
    largest = float(np.finfo(np.float32).max)
    assert decoded(Natural(), np.array([largest, -largest]), library, "float32").tolist() == [2.0**127, -(2.0**127)]
    half = decoded(Natural(), np.array([65504.0, -40000.0]), library, "float16")
    assert half.tolist() == [2.0**15, -(2.0**15)]
    small = np.full(4000, 2.0**-128)
    made = decoded(Natural(), small, library, "float32")
    if not library.denormals:
        assert not made.any()
        return
    assert set(made.tolist()) == {0.0, 2.0**-126}
    assert abs(np.mean(made > 0) - 0.25) < 5 * math.sqrt(0.25 * 0.75 / 4000)


def test_bits_an_element() -> None:
    spec = Spec((4096,))
    sizes = {levels: QSGD(levels).payload(spec)[0][0] * 8 // 4096 for levels in (1, 2, 3, 7, 8, 15, 127)}
    assert sizes == {1: 2, 2: 3, 3: 3, 7: 4, 8: 5, 15: 5, 127: 8}
    assert TernGrad().payload(spec) == ((1024, "uint8"), (1, "float32"))
    assert sum(count for count, _ in Natural().payload(spec)) * 8 == 9 * 4096


@pytest.mark.parametrize("world", [1, 2, 3, 4, 5, 7])
def test_gathered_quantisers_average_what_each_rank_quantised(library: Library, world: int) -> None:
    parts = [own["w"] for own in normal_gradients(world, 0, {"w": (37,)})]
    for codec in (QSGD(bucket=10), TernGrad(), Natural()):
        simulator = Simulator(AllGather(codec), world, allow_larger=True)
        mean = simulator.step([{"w": library.array(x, "float64")} for x in parts])[-1]["w"]
        sent = [of_oracle(codec, x, drawn(codec, 37, ("w", 0, rank))) for rank, x in enumerate(parts)]
        if isinstance(codec, Natural):
            sent = [oracle.natural(np.float32(x), uniforms(37, ("w", 0, r), "float32")) for r, x in enumerate(parts)]
        assert_close(mean, np.mean(sent, axis=0), 1e-12)


def test_ecqsgd_is_the_papers(library: Library) -> None:
    """h_t = sum_t' beta^(t-1-t') (g - Q(p)) at t', and what is quantised is g + alpha h."""
    method, world = ECQSGD(levels=3, bucket=10, alpha=0.3, beta=0.8), 2
    simulator = Simulator(method, world, allow_larger=True)
    losses: list[list[np.ndarray]] = [[] for _ in range(world)]
    for step in range(6):
        gradients = [own["w"] for own in normal_gradients(world, step, {"w": (23,)})]
        sent = []
        for rank, g in enumerate(gradients):
            h = sum((0.8 ** (step - 1 - t) * lost for t, lost in enumerate(losses[rank])), np.zeros(23))
            sent.append(oracle.qsgd(g + 0.3 * h, 3, 10, thresholds(23, ("w", step, rank))))
            losses[rank].append(g - sent[-1])
        mean = simulator.step([{"w": library.array(g, "float64")} for g in gradients])[0]["w"]
        assert_close(mean, np.mean(sent, axis=0), 1e-11)


def test_ecqsgds_memory_stays_bounded_where_plain_feedback_explodes() -> None:
    """Two levels of the norm of 512 elements are far too coarse for a memory of full weight."""
    gradients = normal_gradients(1, 0, {"w": (512,)})

    def memory(compressor: Any) -> float:
        simulator = Simulator(compressor, 1, allow_larger=True)
        for _ in range(60):
            simulator.step(gradients)
        return float(np.linalg.norm(simulator.state_dicts()[0]["units"]["w"]["leaves"]["error"]))

    damped, plain = memory(ECQSGD(levels=2)), memory(ErrorFeedback(AllGather(QSGD(levels=2))))
    assert damped < 20 * np.linalg.norm(gradients[0]["w"]) < plain / 100


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: QSGD(levels=0), "QSGD(levels=0)"),
        (lambda: QSGD(levels=128), "QSGD(levels=128)"),
        (lambda: QSGD(levels=True), "QSGD(levels=True)"),
        (lambda: QSGD(levels=2.0), "QSGD(levels=2.0)"),  # type: ignore[arg-type]
        (lambda: QSGD(bucket=0), "QSGD(bucket=0)"),
        (lambda: QSGD(norm="l1"), "QSGD(norm='l1')"),  # type: ignore[arg-type]
        (lambda: TernGrad(clip=-1.0), "TernGrad(clip=-1.0)"),
        (lambda: TernGrad(clip=math.inf), "TernGrad(clip=inf)"),
        (lambda: TernGrad().variance_factor(Spec((3,))), "TernGrad(clip=2.5)"),
        (lambda: ECQSGD(levels=0), "levels=0"),
        (lambda: ECQSGD(alpha=math.nan), "a=nan"),
    ],
)
def test_wrong_settings_are_refused(make: Any, told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
