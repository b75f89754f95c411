"""The array operations that algorithms rest on, alike in every library."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from cases import Library, assert_close, bits, dtype_of, wide
from hypothesis import given
from hypothesis import strategies as st

from hvd_compress.ops import ops_of, random_generator
from hvd_compress.ops.pieces import PIECE

sizes = st.integers(1, 8)


@pytest.mark.parametrize("name", ["numpy", "torch"])
@given(r=sizes, more=st.integers(0, 8), rank=st.integers(0, 8), scale=st.sampled_from([1e-30, 1.0, 1e30]))
def test_orthonormal_rows_span_at_least_the_rows(name: str, r: int, more: int, rank: int, scale: float) -> None:
    """For every matrix, of any rank down to zero."""
    n, library = r + more, Library(name)
    random = np.random.default_rng([r, n, rank])
    x = random.standard_normal((r, min(rank, r))) @ random.standard_normal((min(rank, r), n))
    array = library.array(x * scale, "float64")
    q = wide(ops_of(array).orthonormal_rows(array))
    assert_close(q @ q.T, np.eye(r), 1e-12)
    assert_close(x @ q.T @ q, x, 1e-12, scale=10.0)


def test_normal_numbers_depend_on_the_key_alone(library: Library) -> None:
    ops = ops_of(library.array(0.0))
    first = ops.normal((3, 4), "float32", (0, "w", 1))
    assert bits(first) == bits(ops.normal((3, 4), "float32", (0, "w", 1)))
    assert bits(first) == random_generator((0, "w", 1)).standard_normal((3, 4)).astype(np.float32).tobytes()
    for key in ((1, "w", 1), (0, "v", 1), (0, "w", 2), (0, "w"), (0, "w1"), ("0", "w", 1)):
        assert bits(ops.normal((3, 4), "float32", key)) != bits(first)


def test_normal_numbers_are_normal(library: Library) -> None:
    """Mean 0 and variance 1 within five standard errors."""
    x = wide(ops_of(library.array(0.0)).normal((20_000,), "float64", (0, "w")))
    assert abs(x.mean()) < 5 / np.sqrt(x.size)
    assert abs(x.var() - 1) < 5 * np.sqrt(2 / x.size)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int16", "uint8", "int64"])
@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (5,), (2, 3)], ids=str)
def test_bytes_and_back(library: Library, dtype: str, shape: tuple[int, ...]) -> None:
    x = library.array(np.arange(np.prod(shape, dtype=int)).reshape(shape), dtype)
    ops = ops_of(x)
    raw = ops.as_bytes(x)
    assert dtype_of(raw) == "uint8"
    assert tuple(raw.shape) == (len(bits(x)),)
    assert bits(raw) == bits(x)
    back = ops.from_bytes(raw, dtype)
    assert (dtype_of(back), bits(back)) == (dtype, bits(x))


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)], ids=str)
def test_bfloat16_bits_keep_the_shape(library: Library, shape: tuple[int, ...]) -> None:
    x = library.array(np.ones(shape))
    bfloat16 = ops_of(x).to_bfloat16_bits(x)
    assert (tuple(bfloat16.shape), dtype_of(bfloat16)) == (shape, "int16")
    assert tuple(ops_of(x).from_bfloat16_bits(bfloat16, "float32").shape) == shape


@pytest.mark.mutable
def test_a_copy_is_contiguous_and_ones_own(library: Library) -> None:
    x = library.array(np.arange(6).reshape(2, 3))
    copy = ops_of(x).copy(x.T)
    assert copy.is_contiguous() if isinstance(x, torch.Tensor) else copy.flags.c_contiguous
    x[...] = 0
    assert wide(copy).tolist() == [[0, 3], [1, 4], [2, 5]]


def test_leading_left_vectors_are_the_svds(library: Library) -> None:
    x = np.random.default_rng(0).standard_normal((6, 4))
    rows = wide(ops_of(library.array(0.0)).leading_left_vectors(library.array(x, "float64"), 2))
    u = np.linalg.svd(x)[0][:, :2]
    assert_close(rows.T @ rows, u @ u.T, 1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("factor", [0.0, 1.0, 0.3])
def test_a_sum_with_a_multiple(library: Library, dtype: str, factor: float) -> None:
    """The factor is a number or an array; what is added stays as it was."""
    random = np.random.default_rng(0)
    x, y = random.standard_normal((3, 7)).astype(dtype), random.standard_normal((3, 7)).astype(dtype)
    ops = ops_of(library.array(0.0))
    added = library.array(y, dtype)
    for own in (factor, library.array(np.array(factor), dtype)):
        total = ops.scale_and_add_(library.array(x, dtype), own, added)
        assert dtype_of(total) == dtype
        assert_close(total, factor * wide(x) + wide(y), 1e-6 if dtype == "float32" else 1e-14)
    assert bits(added) == y.tobytes()


@pytest.mark.parametrize("levels", [1.0, 7.0, 127.0])
def test_rounding_at_thresholds(library: Library, levels: float) -> None:
    """floor(levels x + u), within the levels; what is no number stays none."""
    random = np.random.default_rng(0)
    x, u = random.uniform(-1, 1, 1000), random.random(1000)
    x[:4] = [1.0, -1.0, 1.01, np.nan]
    ops = ops_of(library.array(0.0))
    rounded = ops.rounded_(library.array(x, "float64"), library.array(u, "float64"), levels)
    np.testing.assert_array_equal(wide(rounded), np.clip(np.floor(levels * x + u), -levels, levels))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_norms_of_rows_at_any_magnitude(library: Library, dtype: str) -> None:
    """A power of 2 changes the power of 2 of a norm and nothing else, where all of it is in range."""
    x = np.random.default_rng(0).standard_normal((6, 40)).astype(dtype)
    most = np.finfo(dtype).maxexp
    powers = np.array([[0], [1 - most + 60], [-most // 2], [most // 2], [most - 8], [3 * most // 8]])
    ops = ops_of(library.array(0.0))
    expected = np.ldexp(wide(ops.row_norms(library.array(x, dtype))), powers)
    assert np.array_equal(wide(ops.row_norms(library.array(np.ldexp(x, powers), dtype))), expected)
    assert_close(np.ldexp(expected, -powers)[:, 0], np.linalg.norm(x.astype(np.float64), axis=1), 1e-6)


def test_norms_of_rows_that_have_none(library: Library) -> None:
    x = np.array([[0.0, 0.0], [np.inf, 1.0], [np.nan, 1.0], [-np.inf, np.nan], [3.0, 4.0], [1e-40, 0.0]])
    ops = ops_of(library.array(0.0))
    norms = wide(ops.row_norms(library.array(x, "float64")))[:, 0]
    np.testing.assert_array_equal(norms[[0, 1, 2, 4]], [0.0, np.inf, np.nan, 5.0])
    assert not np.isfinite(norms[3])
    assert_close(norms[5:], np.array([1e-40]), 1e-12)
    assert wide(ops.row_norms(library.array(np.zeros((0, 3))))).shape == (0, 1)


def test_products(library: Library) -> None:
    random = np.random.default_rng(0)
    a, b, x = random.standard_normal((2, 5)), random.standard_normal((2, 3)), random.standard_normal((5, 3))
    ops = ops_of(library.array(0.0))
    left, right, into = (library.array(array, "float64") for array in (a, b, x))
    assert_close(ops.matmul(left, right, transpose_a=True), a.T @ b, 1e-13)
    assert_close(ops.matmul(right, into, transpose_b=True), b @ x.T, 1e-13)
    assert_close(ops.subtract_product_(into, left, right), x - a.T @ b, 1e-13)


@pytest.mark.parametrize(
    ("n", "m", "r"),
    [
        (3, 7, 1),
        (3, 7, 2),
        (8, 3, 3),
        (37, 65, 1),
        (37, 65, 4),
        (48, 2048, 8),
        (19, 2050, 4),
        (2050, 19, 5),
        (19, 8195, 3),
        (601, 650, 4),
        (37, 70, 9),
    ],
)
def test_products_of_thin_factors(library: Library, n: int, m: int, r: int) -> None:
    random = np.random.default_rng(0)
    a, b, x = random.standard_normal((r, n)), random.standard_normal((r, m)), random.standard_normal((n, m))
    ops = ops_of(library.array(0.0))
    left, right, large = (library.array(array, "float64") for array in (a, b, x))
    assert_close(ops.matmul(left, right, transpose_a=True), a.T @ b, 1e-13)
    assert_close(ops.matmul(left, large), a @ x, 1e-13)
    assert_close(ops.matmul(right, large, transpose_b=True), b @ x.T, 1e-13)
    assert_close(ops.subtract_product_(large, left, right), x - a.T @ b, 1e-13)


@pytest.mark.mutable
@pytest.mark.parametrize("r", [1, 4, 9])
def test_products_of_thin_factors_in_any_layout(library: Library, r: int) -> None:
    """What is made is the same, to the bit, whatever memory it is made in."""
    n, m = 37, 2050
    random = np.random.default_rng(0)
    a, b, x = random.standard_normal((r, n)), random.standard_normal((r, m)), random.standard_normal((n, m))
    ops = ops_of(library.array(0.0))
    left, right = library.array(a, "float64"), library.array(b, "float64")
    row_major, column_major = ops.zeros((n, m), "float64"), ops.zeros((m, n), "float64").T
    products = [ops.matmul(left, right, transpose_a=True, out=out) for out in (None, row_major, column_major)]
    assert len({bits(product) for product in products}) == 1
    turned = library.array(x.T, "float64").T
    assert_close(ops.matmul(left, turned), a @ x, 1e-13)
    assert_close(ops.matmul(right, turned, transpose_b=True), b @ x.T, 1e-13)
    assert_close(ops.subtract_product_(turned, left, right), x - a.T @ b, 1e-13)


@pytest.mark.parametrize(
    ("n", "m"), [(5, 2050), (37, 2050), (64, 2050), (8, 17), (8, 100), (12, 33), (511, 300), (513, 300), (4099, 40)]
)
@pytest.mark.parametrize("r", [1, 4, 5, 6, 8])
def test_products_of_thin_factors_are_the_same_on_any_number_of_threads(n: int, m: int, r: int) -> None:
    random = torch.Generator().manual_seed(0)
    r = min(r, n)  # as factors of an n by m matrix are
    left, right = torch.randn(r, n, generator=random), torch.randn(r, m, generator=random)
    before = torch.get_num_threads()
    found = set()
    try:
        for threads in (1, 2, 3, 4, 8):
            torch.set_num_threads(threads)
            found.add(bits(ops_of(left).matmul(left, right, transpose_a=True)))
    finally:
        torch.set_num_threads(before)
    assert len(found) == 1


PRODUCTS = """
import hashlib
import torch
from hvd_compress.codecs.atomo import Spectral
from hvd_compress.contract import Spec
from hvd_compress.ops import ops_of
random, found = torch.Generator().manual_seed(0), hashlib.sha256()
for n, m in ((2601, 650), (511, 300), (9, 8000), (40, 20000), (4099, 40), (64, 4608)):
    for r in (1, 4, 7, 8):
        left, right = torch.randn(r, n, generator=random), torch.randn(r, m, generator=random)
        total, codec = torch.randn(n, m, generator=random), Spectral(rank=r)
        for a, b, x in ((left, right, total), (left.numpy(), right.numpy(), total.numpy())):
            ops = ops_of(a)
            found.update(ops.to_numpy(ops.matmul(a, b, transpose_a=True)).tobytes())
            parts = ops.flatten(ops.copy(a)), ops.flatten(ops.copy(b))
            found.update(ops.to_numpy(codec.accumulate_(ops.copy(x), parts, Spec((n, m)), ops)).tobytes())
print(found.hexdigest())
"""


@pytest.mark.slow
@pytest.mark.parametrize("processor", ["", "Haswell"])
def test_products_of_thin_factors_are_the_same_however_many_threads_numpy_has(processor: str) -> None:
    """Also where NumPy's library has no products for few numbers, as on an older processor."""
    kernels = {"OPENBLAS_CORETYPE": processor} if processor else {}

    def digest(threads: int) -> str:
        environment = {**os.environ, **kernels, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
        words = [sys.executable, "-c", PRODUCTS]
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=100, check=True).stdout

    assert len({digest(threads) for threads in (1, 2, 3)}) == 1


def test_operations_know_their_device(library: Library) -> None:
    x = library.array(np.ones(2))
    assert ops_of(x) == ops_of(library.array(np.zeros(1)))
    assert hash(ops_of(x)) == hash(ops_of(library.array(np.zeros(1))))
    assert ops_of(np.zeros(1)) != ops_of(torch.zeros(1))
    assert ops_of(torch.zeros(1)) != ops_of(torch.zeros(1, device="meta"))


@pytest.mark.parametrize("size", [1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 5])
@pytest.mark.parametrize("unit", [1, 3, PIECE + 7])
def test_work_by_pieces_is_that_on_everything(library: Library, size: int, unit: int) -> None:
    """Outputs may be of other lengths and types, and in memory that is given."""
    x = library.array(np.arange(size) % 251)
    ops = ops_of(x)
    groups = -(-size // unit)

    def part(start: int, stop: int) -> list[Any]:
        assert start % unit == 0
        firsts = ops.take(x, ops.arange(-(-(stop - start) // unit)) * unit + start)
        return [-x[start:stop], ops.cast(firsts, "float64")]

    outputs = [(size, "float32"), (groups, "float64")]
    for memory in ([], [ops.zeros((size,), "float32")], [None, ops.zeros((groups,), "float64")]):
        negative, firsts = ops.by_pieces(part, size, unit, outputs, memory)
        assert bits(negative) == bits(-x)
        assert wide(firsts).tolist() == [float(i % 251) for i in range(0, size, unit)]


@pytest.mark.mutable
def test_work_by_pieces_is_in_the_memory_that_is_given(library: Library) -> None:
    size = PIECE + 1
    x = library.array(np.arange(size))
    memory = ops_of(x).zeros((size,), "float32")
    ops_of(x).by_pieces(lambda start, stop: [-x[start:stop]], size, 1, [(size, "float32")], [memory])
    if ops_of(x).piecewise:
        assert bits(memory) == bits(-x)


def test_the_host_has_the_same_numbers(library: Library) -> None:
    x = library.array([1.0, -2.0, 3.0])
    ops = ops_of(x)
    there = ops.on_host(x)
    back = ops.off_host(ops.host.add_(there, there))
    assert type(back) is type(x)
    assert wide(back).tolist() == [2.0, -4.0, 6.0]
