"""Local work on equal shapes is done at once, each unit gets its own answer, and no round is spent on it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import pytest
from cases import NUMPY, Library, assert_close, bits, normal_gradients, wide

from hvd_compress import Operator, PowerSGD, Simulator, UsageError
from hvd_compress.contract import Batched, Exchanged, Mean, Meanwhile
from hvd_compress.exchange import BucketExchange, Meter
from hvd_compress.ops import ops_of
from hvd_compress.ops.numpy_ops import NumPyOps

OPS = ops_of(np.zeros(1))


def normal(shape: tuple[int, ...], *seed: int) -> np.ndarray:
    return np.random.default_rng([4, *seed]).standard_normal(shape)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Return the shapes of what NumPy is asked to make orthonormal, from here on."""
    shapes: list[tuple[int, ...]] = []
    original = NumPyOps.orthonormal_rows

    def logged(self: NumPyOps, x: Any) -> Any:
        shapes.append(x.shape)
        return original(self, x)

    monkeypatch.setattr(NumPyOps, "orthonormal_rows", logged)
    return shapes


def unit(matrix: Any, before: int = 0, after: int = 0, local: int = 1) -> Generator[Any, Any, Exchanged]:
    """Ask for so many means, then `local` times for orthonormal rows, then for so many means."""
    for _ in range(before):
        (matrix,) = yield [Mean(matrix)]
    for _ in range(local):
        (matrix,) = yield [Batched("orthonormal_rows", matrix)]
    for _ in range(after):
        (matrix,) = yield [Mean(matrix)]
    return Exchanged(matrix, None, {})


def answer_with_itself(exchange: BucketExchange) -> None:
    exchange.answer([fused.request.array for fused in exchange.pending])


def test_equal_shapes_go_together_and_others_apart(calls: list[tuple[int, ...]]) -> None:
    matrices = {"a": normal((2, 5), 0), "b": normal((3, 5), 1), "c": normal((2, 5), 2)}
    single = normal((2, 5), 3).astype(np.float32)
    exchange = BucketExchange({n: (unit(x), OPS) for n, x in {**matrices, "d": single}.items()}, 2, Meter())
    assert sorted(calls) == [(2, 2, 5), (2, 5), (3, 5)]
    assert exchange.done
    for name, matrix in {**matrices, "d": single}.items():
        assert bits(exchange.outcomes[name].mean) == bits(OPS.orthonormal_rows(matrix))


def test_no_round_is_counted_and_no_collective_started(calls: list[tuple[int, ...]]) -> None:
    """Units that ask for local work first, last, twice or not at all are in step with each other's collectives."""
    exchanges = {
        "first": (unit(normal((2, 4), 0), after=2), OPS),
        "twice": (unit(normal((2, 4), 1), local=2, after=2), OPS),
        "between": (unit(normal((2, 4), 2), before=1, after=1), OPS),
        "last": (unit(normal((2, 4), 3), before=2), OPS),
        "never": (unit(normal((2, 4), 4), local=0, after=2), OPS),
    }
    meter = Meter()
    exchange = BucketExchange(exchanges, 2, meter)
    assert calls == [(2, 2, 4), (2, 4)]
    for number in range(2):
        assert exchange.round_number == number
        assert [len(fused.members) for fused in exchange.pending] == [5]
        answer_with_itself(exchange)
    assert exchange.done
    assert calls == [(2, 2, 4), (2, 4), (2, 4), (2, 4)]
    assert (meter.collectives, meter.sent_bytes) == (2, 2 * 5 * 8 * 8)


def test_it_has_a_round_of_its_own() -> None:
    def mixed() -> Generator[Any, Any, Exchanged]:
        yield [Batched("orthonormal_rows", normal((2, 3))), Meanwhile(lambda: 0)]
        return Exchanged(None, None, {})

    with pytest.raises(UsageError, match="'u' asked for Batched and for something else"):
        BucketExchange({"u": (mixed(), OPS)}, 2, Meter())


def test_several_in_one_round() -> None:
    def two() -> Generator[Any, Any, Exchanged]:
        left, right = yield [Batched("orthonormal_rows", normal((2, 6), i)) for i in range(2)]
        return Exchanged(left, right, {})

    outcome = BucketExchange({"u": (two(), OPS)}, 2, Meter()).outcomes["u"]
    for mine, i in ((outcome.mean, 0), (outcome.rest, 1)):
        assert bits(mine) == bits(OPS.orthonormal_rows(normal((2, 6), i)))


def test_every_matrix_of_a_stack_gets_its_own_rows(library: Library) -> None:
    """Normal, rank-deficient, zero and huge ones side by side: each as if it were alone."""
    low = np.outer(normal((3,), 1), normal((7,), 2))
    matrices = [library.array(x, "float64") for x in (normal((3, 7)), low, np.zeros((3, 7)), 1e150 * normal((3, 7), 3))]
    ops = ops_of(matrices[0])
    for x, rows in zip(matrices, ops.orthonormal_rows(ops.stack(matrices)), strict=True):
        assert_close(rows, wide(ops.orthonormal_rows(x)), 1e-12)
        assert_close(wide(rows) @ wide(rows).T, np.eye(3), 1e-12)


def test_what_is_not_finite_stays_with_its_own_matrix(library: Library) -> None:
    good, bad = normal((3, 7)), normal((3, 7), 1)
    bad[1, 2] = np.nan
    array = library.array([good, bad, good], "float64")
    rows = ops_of(array).orthonormal_rows(array)
    expected = ops_of(array).orthonormal_rows(array[0])
    for i in (0, 2):
        assert_close(rows[i], wide(expected), 1e-12)


@pytest.mark.parametrize(
    "method",
    [PowerSGD(1), PowerSGD(2, power_iterations=2), PowerSGD(2, alternate=True), PowerSGD(2, start_after=1)],
    ids=repr,
)
def test_layers_of_equal_shape_are_as_if_alone(library: Library, method: Operator) -> None:
    """In one bucket, in buckets of their own and one by one in a model of their own: the same update."""
    shapes = {**{f"layer{i}": (9, 12) for i in range(5)}, "other": (12, 9), "bias": (9,)}
    together, apart = Simulator(method, 2), Simulator(method, 2, bucket_bytes=1)
    alone = {name: Simulator(method, 2) for name in shapes}
    for step in range(4):
        gradients = library.arrays(normal_gradients(2, step, shapes))
        means = together.step(gradients)[0]
        others = apart.step(gradients)[0]
        for name, simulator in alone.items():
            mean = simulator.step([{name: own[name]} for own in gradients])[0][name]
            assert_close(means[name], wide(mean), 1e-5, scale=4.0)
            assert_close(others[name], wide(mean), 1e-5, scale=4.0)


def test_one_factorisation_a_shape(calls: list[tuple[int, ...]]) -> None:
    shapes = {**{f"layer{i}": (9, 12) for i in range(5)}, "other": (12, 9)}
    simulator = Simulator(PowerSGD(2), 1)
    simulator.step(NUMPY.arrays(normal_gradients(1, 0, shapes)))
    assert calls == [(5, 2, 9), (2, 12)]
