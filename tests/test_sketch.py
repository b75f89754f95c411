"""Count sketches: linear tables with the variance of random signs, whose heavy hitters are found and sent exactly."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import NUMPY, TORCH, Library, assert_close, bits, dtype_of, wide
from hypothesis import given
from hypothesis import strategies as st
from oracles import sketch as oracle
from oracles.averaging import average
from oracles.collectives import lockstep

from hvd_compress import ConfigurationError, CorruptPayloadError, CountSketch, Simulator, Spec, sketch_size, tune_sketch
from hvd_compress.contract import Context
from hvd_compress.operators.sketch import Hashes, hashes, rotation
from hvd_compress.operators.sketch.agreement import checksum
from hvd_compress.operators.sketch.field import PRIME
from hvd_compress.operators.sketch.polynomial import PolynomialHashes, bucket_of, check_size, coefficients, sign_bit_of
from hvd_compress.operators.sketch.rotation import RotationHashes
from hvd_compress.ops import NumPyOps, base, ops_of, pieces
from hvd_compress.ops.median import median

OPS = ops_of(np.zeros(1))
Kind = Callable[..., Hashes]
KINDS = pytest.mark.parametrize("kind", [RotationHashes, PolynomialHashes], ids=["rotation", "polynomial"])
HASHING = pytest.mark.parametrize("hashing", ["rotation", "polynomial"])


def tables(found: Hashes) -> tuple[np.ndarray, np.ndarray]:
    """Return the buckets and signs (r x d) that a hash family uses, seen from outside: from d sketches of one-hots."""
    sketches = np.stack([wide(found.sketch(row)) for row in np.eye(found.size)], axis=2)
    assert (np.abs(sketches).sum(axis=1) == 1).all()
    return np.abs(sketches).argmax(axis=1), sketches.sum(axis=1)


def heavy(d: int, *key: int) -> np.ndarray:
    """Return numbers of which few are large."""
    return np.random.default_rng([3, *key]).standard_normal(d) ** 5


# --- the table ---


@KINDS
@given(size=st.integers(1, 300), columns=st.integers(1, 90), rows=st.sampled_from([1, 3, 5, 9]))
@pytest.mark.parametrize("sliced", [False, True])
@pytest.mark.parametrize("piecewise", [False, True])
def test_sketch_and_estimates_are_those_of_charikar(
    kind: Kind, sliced: bool, piecewise: bool, size: int, columns: int, rows: int
) -> None:
    """Whatever the size, also where the work is done in pieces, of blocks or parts of them, by an index or slices."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rotation, "_SLICE", 1 if sliced else 10**9)
        patch.setattr(hashes, "_AT_ONCE", 70)
        patch.setattr(hashes, "_PIECES", 5)
        patch.setattr(NumPyOps, "piecewise", piecewise)
        for module in (base, pieces, rotation):
            patch.setattr(module, "PIECE", 30 if sliced else 100)
        for library in (NUMPY, TORCH):
            ops = ops_of(library.array(0.0))
            found = kind(size, rows, columns, 4, ops)
            buckets, signs = tables(kind(size, rows, columns, 4, OPS))
            x = heavy(size, columns)
            table = found.sketch(library.array(x, "float64"))
            assert_close(table, oracle.sketch(x, buckets, signs, columns), 1e-12)
            assert_close(found.estimates(table), oracle.estimate(wide(table), buckets, signs), 0.0)


@KINDS
def test_a_sketch_is_linear(kind: Kind, library: Library) -> None:
    ops = ops_of(library.array(0.0))
    found = kind(1000, 5, 64, 0, ops)
    x, y = (np.random.default_rng(i).standard_normal(1000) for i in range(2))
    both = wide(found.sketch(library.array(2.0 * x - 3.0 * y, "float64")))
    apart = [wide(found.sketch(library.array(v, "float64"))) for v in (x, y)]
    assert_close(both, 2.0 * apart[0] - 3.0 * apart[1], 1e-12)


@KINDS
def test_tables_are_the_same_everywhere(kind: Kind, library: Library) -> None:
    """Bit by bit, for whole numbers, whose sums are exact: made anew as on another rank, and in every library."""
    x = np.random.default_rng(0).integers(-99, 99, 5000).astype(float)
    reference = kind(5000, 9, 300, 7, OPS).sketch(x)
    again = kind(5000, 9, 300, 7, ops_of(library.array(0.0))).sketch(library.array(x, "float64"))
    assert bits(again) == bits(reference)
    assert bits(kind(5000, 9, 300, 8, OPS).sketch(x)) != bits(reference)
    for row, other in itertools.combinations(reference, 2):
        assert bits(row) != bits(other), "rows are hashed independently"


@KINDS
@given(size=st.integers(1, 200), columns=st.integers(1, 250), data=st.data())
def test_a_one_hot_fills_one_bucket_a_row(kind: Kind, size: int, columns: int, data: Any) -> None:
    x = np.zeros(size)
    x[data.draw(st.integers(0, size - 1))] = 1.0
    table = kind(size, 5, columns, 1, OPS).sketch(x)
    assert table.shape == (5, columns)
    assert (np.count_nonzero(table, axis=1) == 1).all()
    assert (np.abs(table).sum(axis=1) == 1.0).all()


@KINDS
def test_estimates_are_unbiased_with_the_variance_of_the_others(kind: Kind) -> None:
    """E = x_i, Var <= ||x||^2 / c for one row, within five standard errors over seeds."""
    size, columns, seeds = 120, 16, 1500
    x = np.random.default_rng(2).standard_normal(size)
    errors = np.stack([_estimates(kind, x, 1, columns, seed) - x for seed in range(seeds)])
    bound = float(x @ x) / columns
    assert (np.abs(errors.mean(axis=0)) < 5 * math.sqrt(bound / seeds)).all()
    squares = errors**2
    spread = squares.std(axis=0) / math.sqrt(seeds)
    assert (squares.mean(axis=0) < bound + 5 * spread).all()
    others = (float(x @ x) - x**2) / columns
    least = others * (1 - columns / size) if kind is RotationHashes else others
    assert squares.mean() > 0.9 * least.mean(), "the bound is nearly reached"


def _estimates(kind: Kind, x: np.ndarray, rows: int, columns: int, seed: int) -> np.ndarray:
    found = kind(x.size, rows, columns, seed, OPS)
    return np.asarray(found.estimates(found.sketch(x)))


@KINDS
def test_medians_make_large_errors_rare(kind: Kind) -> None:
    """One row is off by more than 3 ||x|| / sqrt(c) for up to 1/9 of the coordinates; five rows for far fewer."""
    x = np.random.default_rng(2).standard_normal(20_000) ** 5
    limit = float(np.linalg.norm(x)) / math.sqrt(400)
    off = [np.mean(np.abs(_estimates(kind, x, rows, 400, 0) - x) > limit) for rows in (1, 5)]
    assert 0.0 < off[0] <= 1.0
    assert off[1] < 0.3 * off[0]


@KINDS
def test_two_coordinates_meet_with_probability_one_in_c(kind: Kind) -> None:
    """Over rows of independent hash functions, within five standard errors; of one block of a rotation, never."""
    size, columns, rows = 23, 7, 3_001
    found = tables(kind(size, rows, columns, 5, OPS))[0]
    for i, j in itertools.combinations(range(size), 2):
        share = np.mean(found[:, i] == found[:, j])
        if kind is RotationHashes and i // columns == j // columns:
            assert share == 0.0
        else:
            assert abs(share - 1 / columns) < 5 * math.sqrt(1 / columns * (1 - 1 / columns) / rows)


@KINDS
def test_buckets_are_used_alike(kind: Kind) -> None:
    found = tables(kind(15, 3_001, 6, 2, OPS))[0]
    for i in range(15):
        shares = np.bincount(found[:, i], minlength=6) / 3_001
        assert (np.abs(shares - 1 / 6) < 5 * math.sqrt(1 / 6 * 5 / 6 / 3_001)).all()


@KINDS
def test_signs_are_four_wise_independent(kind: Kind) -> None:
    """The mean over rows of any product of one to four signs is 0, within six standard errors (hundreds of them)."""
    rows = 3_001
    signs = tables(kind(9, rows, 4, 6, OPS))[1]
    for count in (1, 2, 3, 4):
        for some in itertools.combinations(range(9), count):
            product = np.prod(signs[:, list(some)], axis=1)
            assert abs(product.mean()) < 6 / math.sqrt(rows), some


# --- polynomials over the prime field ---


def test_no_overflow_close_to_the_prime() -> None:
    """int64 arithmetic gives what whole numbers of any size give, up to the largest coordinate and coefficient."""
    places = [0, 1, 2, 2**16, 2**30, PRIME - 3, PRIME - 2, PRIME - 1]
    for line, cubic in (
        ([PRIME - 1, PRIME - 1], [PRIME - 1] * 4),
        *((a[0], b[0]) for a, b in (coefficients(1, seed) for seed in range(20))),
    ):
        x = np.array(places, np.int64)
        exact = [(line[0] * i + line[1]) % PRIME % 1000 for i in places]
        odd = [(cubic[0] * i**3 + cubic[1] * i**2 + cubic[2] * i + cubic[3]) % PRIME % 2 for i in places]
        assert bucket_of(x, line, 1000).tolist() == exact
        assert sign_bit_of(x, cubic).tolist() == odd


def test_more_coordinates_than_the_field_has_are_refused() -> None:
    check_size(PRIME - 1)
    with pytest.raises(ConfigurationError, match="size=2147483647; use hashing='rotation'"):
        check_size(PRIME)
    sketch = CountSketch(hashing="polynomial", k=10, columns=20)
    with pytest.raises(ConfigurationError, match="size=2147483647"):
        sketch.hashes(PRIME, OPS)


# --- the helpers ---


@pytest.mark.parametrize("count", [1, 3, 5, 7, 9, 11, 13])
def test_medians(library: Library, count: int) -> None:
    x = np.random.default_rng(count).integers(-5, 5, (count, 500)).astype(float)
    arrays = [library.array(row, "float64") for row in x]
    assert_close(median(arrays, ops_of(arrays[0])), np.median(x, axis=0), 0.0)
    x[count // 2, 7] = math.nan
    arrays = [library.array(row, "float64") for row in x]
    assert np.isnan(wide(median(arrays, ops_of(arrays[0])))[7])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("index", range(8))
def test_flip(library: Library, dtype: str, index: int) -> None:
    x = np.array([1.5, -2.0, 0.0, math.inf, 1e-40, 3.0, -7.25, 0.1, 5.0])
    flags = np.random.default_rng(index).integers(0, 256, 9)
    ops, array, chosen = ops_of(library.array(x)), library.array(x, dtype), library.array(flags, "uint8")
    flipped = ops.flip(array[1:8], chosen[1:8], index)
    assert dtype_of(flipped) == dtype
    assert bits(flipped) == bits(library.array(np.where(flags >> index & 1, -x, x)[1:8], dtype))
    assert bits(array) == bits(library.array(x, dtype)), "the argument is left as it is"


# --- the operator ---

D, K = 900, 12


def step(
    operator: CountSketch, values: list[np.ndarray], library: Library = NUMPY, dtype: str = "float64"
) -> tuple[list[Any], list[Any]]:
    """Return what one exchange ends with on every worker, and the collectives asked for."""
    gradients = [library.array(x, dtype) for x in values]
    spec, ops, world = Spec(values[0].shape, dtype), ops_of(gradients[0]), len(values)
    return lockstep(
        [operator.exchange(g, {}, Context(ops, spec, "w", 0, i, world, feedback=True)) for i, g in enumerate(gradients)]
    )


@HASHING
@pytest.mark.parametrize("world", [1, 2, 3, 4, 5, 7])
def test_heavy_hitters_of_both_signs_are_found(hashing: str, world: int, library: Library) -> None:
    """Coordinates that no single worker would call large, as they are large in the mean alone."""
    places = np.random.default_rng(1).choice(D, K, replace=False)
    signal = np.zeros(D)
    signal[places] = np.where(np.arange(K) % 2, 30.0, -30.0)
    noise = np.random.default_rng(0).standard_normal((world, D))
    hidden = 50.0 * np.random.default_rng(5).standard_normal((world, D))
    values = list(signal + noise + hidden - hidden.mean(axis=0))
    operator = CountSketch(k=K, columns=200, candidates=3, hashing=hashing)  # type: ignore[arg-type]
    outcomes, _ = step(operator, values, library)
    expected = np.zeros(D)
    expected[places] = average(values)[places]
    for outcome in outcomes:
        assert_close(outcome.mean, expected, 1e-12)
        assert sorted(wide(outcome.positions)) == sorted(places)
        assert bits(outcome.mean) == bits(outcomes[0].mean)


@HASHING
def test_a_table_as_wide_as_the_gradient_gives_the_true_largest(hashing: str, library: Library) -> None:
    values = [heavy(D, rank) for rank in range(3)]
    columns = D if hashing == "rotation" else 10**5
    mean = average(values)
    expected = np.where(np.isin(np.arange(D), oracle.largest(mean, K)), mean, 0.0)
    for second_round in (True, False):
        operator = CountSketch(k=K, columns=columns, candidates=1, second_round=second_round, hashing=hashing)  # type: ignore[arg-type]
        assert_close(step(operator, values, library)[0][0].mean, expected, 1e-12)


@HASHING
@pytest.mark.parametrize("second_round", [True, False])
@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_nothing_is_lost(hashing: str, second_round: bool, world: int, library: Library) -> None:
    """rest + what was sent = gradient: own values with the second round, in the mean without it."""
    values = [heavy(D, rank) for rank in range(world)]
    operator = CountSketch(k=K, columns=100, second_round=second_round, hashing=hashing)  # type: ignore[arg-type]
    outcomes, _ = step(operator, values, library)
    applied = wide(outcomes[0].positions).astype(int)
    assert len(set(applied)) == K
    assert np.count_nonzero(wide(outcomes[0].mean)) == K
    kept = np.setdiff1d(np.arange(D), applied)
    for value, outcome in zip(values, outcomes, strict=True):
        assert np.array_equal(wide(outcome.rest)[kept], value[kept])
        if second_round:
            assert not np.any(wide(outcome.rest)[applied])
    contributed = [value - wide(outcome.rest) for value, outcome in zip(values, outcomes, strict=True)]
    assert_close(average(contributed), outcomes[0].mean, 1e-12)


@HASHING
@pytest.mark.parametrize("world", [2, 5, 7])
def test_workers_are_one_worker_with_the_mean_gradient(hashing: str, world: int) -> None:
    values = [heavy(D, rank) for rank in range(world)]
    operator = CountSketch(ratio=0.02, columns=100, hashing=hashing)  # type: ignore[arg-type]
    many, one = (step(operator, v)[0][0].mean for v in (values, [average(values)]))
    assert_close(many, one, 1e-12)


def test_what_travels() -> None:
    """r c numbers, then P k and the bits of a checksum; once d where that is all; for any number of workers."""
    operator = CountSketch(k=10, rows=3, columns=50, candidates=4)
    for world in (1, 2, 4):
        _, rounds = step(operator, [heavy(D, rank) for rank in range(world)])
        assert [[(a.kind, a.count) for a in asked] for asked in rounds] == [
            [("Mean", 150)],
            [("Mean", 40), ("Mean", 24)],
        ]
        assert [[(a.kind, a.count) for a in asked] for asked in step(operator, [heavy(40, 1)] * world)[1]] == [
            [("Mean", 40)]
        ]
    spec = Spec((D,))
    sent = {world: operator.wire_bytes(spec, world) for world in (2, 4, 8, 64)}
    assert all(abs(sent[world] - 2 * (world - 1) / world * 4 * (150 + 40 + 24)) <= 3 for world in sent)
    assert sent[64] < 2 * sent[2]


def test_a_rank_with_another_table_is_caught() -> None:
    """An allreduce that gives ranks different tables would apply different coordinates: it must not go unseen."""
    operator = CountSketch(k=5, rows=1, columns=100, candidates=2)
    values = [heavy(D, rank) for rank in range(3)]

    def tampered(exchange: Any) -> Any:
        requests = next(exchange)
        table, *others = yield requests
        requests = exchange.send([table[:, ::-1].copy(), *others])
        while True:
            results = yield requests
            try:
                requests = exchange.send(results)
            except StopIteration as end:
                return end.value

    contexts = [Context(OPS, Spec((D,), "float64"), "w", 0, rank, 3) for rank in range(3)]
    exchanges = [operator.exchange(x.copy(), {}, context) for x, context in zip(values, contexts, strict=True)]
    with pytest.raises(CorruptPayloadError, match="different coordinates"):
        lockstep([tampered(exchanges[0]), *exchanges[1:]])


@pytest.mark.parametrize("world", [2, 3, 48, 64])
def test_the_checksum_survives_float16(world: int) -> None:
    """Equal bits average to themselves within 1/4 in float16 however they are added up; one odd rank is off by 1/2."""
    own = checksum(np.arange(0, 4000, 7), "float64", OPS)
    assert set(own) == {0.0, 1.0}
    total = np.zeros(24, np.float16)
    for _ in range(world):
        total = (total + (own / world).astype(np.float16)).astype(np.float16)
    assert np.abs(total - own).max() < 0.1
    other = checksum(np.arange(0, 4000, 7) + (np.arange(572) == 300), "float64", OPS)
    mixed = own + (other - own) / world
    assert max(np.abs(mixed - own).max(), np.abs(mixed - other).max()) >= 0.5
    assert np.array_equal(own, checksum(np.arange(0, 4000, 7), "float64", OPS))


@pytest.mark.parametrize("poison", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("second_round", [True, False])
def test_an_overflow_is_seen_though_it_spoils_more_estimates_than_are_asked_for(
    library: Library, poison: float, second_round: bool
) -> None:
    values = [heavy(D, rank) for rank in range(2)]
    values[1][D // 2] = poison
    operator = CountSketch(k=2, columns=10, candidates=2, second_round=second_round)
    with np.errstate(all="ignore"):
        outcomes, _ = step(operator, values, library)
    assert all(not np.isfinite(wide(outcome.mean)).all() for outcome in outcomes)


def test_units() -> None:
    """Matrices travel together, flat; vectors and small matrices each on their own, dense."""
    shapes = {"a": (40, 30), "bias": (2000,), "small": (3, 3), "b": (50, 30)}
    simulator = Simulator(CountSketch(k=20), 2)
    gradients = [{n: np.random.default_rng(r).standard_normal(s) for n, s in shapes.items()} for r in range(2)]
    means = simulator.step(gradients)[0]
    assert {unit.name: unit.dense for unit in simulator.plan.units} == {"bias": True, "small": True, "a..b": False}
    assert np.count_nonzero(means["a"]) + np.count_nonzero(means["b"]) == 20
    assert not CountSketch(min_size=1201).compresses(Spec((40, 30)))
    assert CountSketch(min_size=1200).compresses(Spec((40, 30)))


@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16"])
def test_element_types(dtype: str) -> None:
    values = [np.round(heavy(D, rank)) for rank in range(2)]
    outcomes, rounds = step(CountSketch(k=K, columns=300), values, TORCH, dtype)
    assert dtype_of(outcomes[0].mean) == dtype
    assert dtype_of(outcomes[0].rest) == "float32"
    assert {asked.dtype for asked in itertools.chain(*rounds)} == {"float32"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("ratio", x) for x in (0.0, -0.1, 1.1, "1", None, math.nan)),
        *((name, x) for name in ("k", "columns", "rows", "candidates") for x in (0, -1, 1.5, True, "4")),
        *(("rows", x) for x in (2, 4, None)),
        *((name, x) for name in ("min_size", "seed") for x in (-1, 0.5, None)),
        *(("hashing", x) for x in ("murmur", None, 1)),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as raised:
        CountSketch(**{name: value})
    assert f"{name}={value!r}" in str(raised.value)


# --- sizes ---


@given(d=st.integers(1, 10**10), share=st.floats(0.0, 1.0))
def test_proposed_sizes(d: int, share: float) -> None:
    k = max(1, round(d * share))
    rows, columns, candidates = size = sketch_size(d, k)
    assert rows % 2 == 1 and 3 <= rows <= 7
    assert columns == min(2 * k, d)
    assert size.numbers(k) == rows * columns + candidates * k
    CountSketch(k=k, **size._asdict())
    assert sketch_size(d, k).rows <= sketch_size(100 * d, k).rows


@pytest.mark.parametrize(("d", "k"), [(10, 0), (10, 11), (10, -1), (10, 2.0), (10, True), (0, 0)])
def test_sizes_of_nothing_are_refused(d: int, k: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"k={k!r}"):
        sketch_size(d, k)


def test_the_tuner_measures_recovery(library: Library) -> None:
    """Recovery grows with every dimension; what it calls good enough is what the operator then does."""
    values = [heavy(4000, rank) for rank in range(3)]
    arrays = [library.array(x.reshape(40, 100)) for x in values]
    tuning = tune_sketch(arrays, 40, rows=(1, 5), widths=(0.5, 2.0, 200.0), candidates=(1, 8), target=0.95)
    assert len(tuning.trials) == 12
    by_size = {tuple(trial.size): trial for trial in tuning.trials}
    assert by_size[5, 20, 8].norm < by_size[5, 80, 8].norm < by_size[5, 4000, 8].norm == pytest.approx(1.0)
    assert by_size[5, 80, 1].norm <= by_size[5, 80, 8].norm
    assert by_size[5, 4000, 1].found == 1.0
    best = tuning.cheapest
    assert best is not None and best.norm >= 0.95
    assert all(trial.norm < 0.95 for trial in tuning.trials if trial.numbers < best.numbers)
    mean = average(values)
    out = wide(step(CountSketch(k=40, **best.size._asdict()), [v.astype(np.float32) for v in values])[0][0].mean)
    assert np.sum(out**2) / np.sum(np.sort(mean**2)[-40:]) == pytest.approx(best.norm, rel=1e-4)


def test_the_tuner_says_if_nothing_is_good_enough() -> None:
    flat = [np.random.default_rng(0).choice([-1.0, 1.0], 5000)]
    tuning = tune_sketch(flat, 50, rows=(3,), widths=(1.0,), candidates=(1, 2), target=1.0)
    assert tuning.cheapest is None or tuning.cheapest.found < 0.5  # equal magnitudes: any k of them are the largest
    steep = [np.random.default_rng(0).standard_normal(5000)]
    assert tune_sketch(steep, 50, rows=(1,), widths=(0.5,), candidates=(1,), target=0.99).cheapest is None
    assert tune_sketch([np.zeros(500)], 5, rows=(1,), widths=(1.0,), candidates=(1,)).cheapest is not None


@pytest.mark.parametrize(("change", "named"), [({"k": 0}, "k=0"), ({"k": 11}, "k=11"), ({"target": 2.0}, "target=2.0")])
def test_the_tuner_refuses(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        tune_sketch([np.ones(10)], **{"k": 2, **change})
    with pytest.raises(ConfigurationError, match="at least one"):
        tune_sketch([], 1)
