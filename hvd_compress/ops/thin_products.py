"""Products with thin factors, by torch on a processor: few rows of the large matrix at a time.

Products of so few rows go to kernels that do not copy what they multiply, as those for large matrices do; and what they
write stays in the cache, where many rows of a power of 2 of columns would push each other out.

Roundings must not tell ranks apart. With up to `FEW` columns what is written depends on numbers and shapes alone, not
on layouts or threads, where memory is aligned as torch aligns it; with more, not on layouts.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

from .base import Array

# The most rows of a thin factor, transposed; and the most for which products of few rows are faster.
THIN, FEW = 64, 8
# Rows of a large matrix at a time, where it is written and where it is read; and numbers written at a time.
_WRITTEN, _READ, _BLOCK = 8, 16, 2**16
# Rows of a product below which threads would share out its columns, and round them otherwise.
_FOR_THREADS = 512
# Columns from which adding up products, one for every few rows, costs less than what it saves.
_WIDE = 2**11


def put_product(out: Array, left: Array, right: Array, torch: ModuleType) -> None:
    """Write left right, (n, r) times (r, m), to `out`, (n, m)."""
    few = left.shape[1] <= FEW
    whole = 0 if out.numel() <= _BLOCK or (few and out.shape[0] < _FOR_THREADS) else _whole_rows(left)
    if whole > 0 and few:
        blocks = left[:whole].unflatten(0, (-1, _WRITTEN))
        torch.bmm(blocks, right.expand(len(blocks), -1, -1), out=out[:whole].unflatten(0, (-1, _WRITTEN)))
    else:
        for rows in _row_blocks(0, whole, out.shape[1]):
            torch.mm(left[rows], right, out=out[rows])
    for rows in _row_blocks(whole, out.shape[0], out.shape[1]):
        rest = torch.mul(left[rows, :1], right[:1], out=out[rows])
        for i in range(1, left.shape[1]):
            rest.addcmul_(left[rows, i : i + 1], right[i : i + 1])


def subtract_product(x: Array, left: Array, right: Array) -> None:
    """Subtract left right, (n, r) times (r, m), from x, (n, m)."""
    whole = _whole_rows(left)
    if whole > 0 and left.shape[1] <= FEW:
        blocks = left[:whole].unflatten(0, (-1, _WRITTEN))
        x[:whole].unflatten(0, (-1, _WRITTEN)).baddbmm_(blocks, right.expand(len(blocks), -1, -1), alpha=-1.0)
    else:
        for rows in _row_blocks(0, whole, x.shape[1]):
            x[rows].addmm_(left[rows], right, alpha=-1.0)
    if whole < x.shape[0]:
        for i in range(left.shape[1]):
            x[whole:].addcmul_(left[whole:, i : i + 1], right[i : i + 1], value=-1.0)


def product_with_rows(a: Array, x: Array, torch: ModuleType) -> Array:
    """Return a x^T for a (r, m), x (n, m)."""
    whole = x.shape[0] // _READ * _READ
    if not whole:
        return torch.mm(a, x.t())
    blocks = x[:whole].unflatten(0, (-1, _READ))
    found = torch.bmm(a.expand(len(blocks), -1, -1), blocks.mT).transpose(0, 1).reshape(a.shape[0], whole)
    return found if whole == x.shape[0] else torch.cat([found, torch.mm(a, x[whole:].t())], dim=1)


def product_with_columns(a: Array, x: Array, torch: ModuleType) -> Array:
    """Return a x for a (r, n), x (n, m)."""
    if x.shape[1] < _WIDE:
        return torch.mm(a, x)
    total = torch.zeros((a.shape[0], x.shape[1]), dtype=x.dtype)
    for columns, rows in zip(a.split(_READ, dim=1), x.split(_READ), strict=True):
        total.addmm_(columns, rows)
    return total


def _whole_rows(left: Array) -> int:
    """Return how many rows of a product are for kernels of several rows; the others are sums of outer products.

    Kernels share out a few rows too many or too few to threads by their columns, and round them otherwise then. The
    product of one column and one row is nothing but an outer product, which is the fastest there is.
    """
    rows: int = left.shape[0]
    return 0 if left.shape[1] == 1 else rows // _WRITTEN * _WRITTEN


def _row_blocks(first: int, end: int, columns: int) -> Iterator[slice]:
    """Yield blocks of rows first .. end - 1 of a matrix that are to be written at once."""
    length = max(1, _BLOCK // max(1, columns) // _WRITTEN) * _WRITTEN
    for start in range(first, end, length):
        yield slice(start, min(start + length, end))
