"""Products with thin factors on a processor: a few rows of the large matrix at a time.

What they write stays in the cache, where many rows of a power of 2 of columns would push each other out. NumPy's
products of so few numbers copy nothing that they multiply; where the large matrix is not in the cache yet, one thread
of it writes and subtracts as fast as two of torch's. It says nothing of infinities and of what is too small, as torch
does.

Roundings must not tell ranks apart. With up to `FEW` columns what is written depends on numbers and shapes alone, not
on layouts or threads; with more, not on layouts. What is subtracted from is a rank's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

from .base import Array

# The most rows of a thin factor, transposed; and the most of which every block is the work of one thread.
THIN, FEW = 64, 8
# Rows of a large matrix at a time, where it is written and where it is read.
_WRITTEN, _READ = 8, 16
# Numbers written at a time, and products of numbers up to which no library shares them out among threads: roundings
# would depend on how many there are.
_BLOCK, _FOR_ONE_THREAD = 2**16, 2**18
# The same where the product is a rank's own: NumPy's library copies nothing that it multiplies.
_OWN_BLOCK, _WITHOUT_COPY = 2**17, 2**19
# Of a matrix that NumPy reads: columns at a time, and numbers that come of it.
_COLUMNS, _FOUND = 2**12, 2**10
# Columns from which adding up products, one for every few rows, costs less than what it saves.
_WIDE = 2**11
_PAGE = 2**12
# Rows and columns.
_Block: TypeAlias = tuple[slice, slice]


def put_product(out: Array, left: Array, right: Array, torch: ModuleType) -> None:
    """Write left right, (n, r) times (r, m), to row-major `out`, (n, m), r >= 1."""
    left, right, out = left.detach(), right.detach().contiguous(), out.detach()
    whole = _whole_rows(left)
    if _is_for_numpy(left, left.shape[1]):
        a, b, written = left.numpy(), right.numpy(), out.numpy()
        with np.errstate(all="ignore"):
            for rows, columns in _blocks(0, whole, out.shape[1], min(_BLOCK, _FOR_ONE_THREAD // left.shape[1])):
                np.matmul(a[rows], b[:, columns], out=written[rows, columns])
    else:
        for rows, columns in _blocks(0, whole, out.shape[1]):
            torch.mm(left[rows], right[:, columns], out=out[rows, columns])
    for rows, columns in _blocks(whole, out.shape[0], out.shape[1]):
        rest = torch.mul(left[rows, :1], right[:1, columns], out=out[rows, columns])
        for i in range(1, left.shape[1]):
            rest.addcmul_(left[rows, i : i + 1], right[i : i + 1, columns])


def subtract_product(x: Array, left: Array, right: Array, torch: ModuleType) -> None:
    """Subtract left right, (n, r) times (r, m), from x, (n, m), r >= 1."""
    left, right, x = left.detach(), right.detach().contiguous(), x.detach()
    whole = _whole_rows(left)
    if left.shape[1] <= FEW and whole and (_has_whole_pages(x) or torch.get_num_threads() > 2):
        blocks = left[:whole].unflatten(0, (-1, _WRITTEN))
        x[:whole].unflatten(0, (-1, _WRITTEN)).baddbmm_(blocks, right.expand(len(blocks), -1, -1), alpha=-1.0)
    elif _is_for_numpy(left, left.shape[1]):
        a, b, changed = left.numpy(), right.numpy(), x.numpy()
        memory = np.empty(min(_OWN_BLOCK, x.numel()), changed.dtype)
        most = min(_OWN_BLOCK, _WITHOUT_COPY // left.shape[1])
        with np.errstate(all="ignore"):
            for rows, columns in _blocks(0, whole, x.shape[1], most):
                part = changed[rows, columns]
                product = memory[: part.size].reshape(part.shape)
                np.subtract(part, np.matmul(a[rows], b[:, columns], out=product), out=part)
    else:
        for rows, columns in _blocks(0, whole, x.shape[1]):
            x[rows, columns].addmm_(left[rows], right[:, columns], alpha=-1.0)
    if whole < x.shape[0]:
        for i in range(left.shape[1]):
            x[whole:].addcmul_(left[whole:, i : i + 1], right[i : i + 1], value=-1.0)


def product_with_rows(a: Array, x: Array, torch: ModuleType) -> Array:
    """Return a x^T for a (r, m), x (n, m), r >= 1."""
    if _is_for_numpy(x, a.shape[0]) and torch.get_num_threads() == 1 and (a.shape[0] == 1 or _without_copies(torch)):
        with np.errstate(all="ignore"):
            return torch.from_numpy(_product_with_rows(a.detach().numpy(), x.detach().numpy()))
    whole = x.shape[0] // _READ * _READ
    if not whole:
        return torch.mm(a, x.t())
    blocks = x[:whole].unflatten(0, (-1, _READ))
    found = torch.bmm(a.expand(len(blocks), -1, -1), blocks.mT).transpose(0, 1).reshape(a.shape[0], whole)
    return found if whole == x.shape[0] else torch.cat([found, torch.mm(a, x[whole:].t())], dim=1)


def _product_with_rows(a: np.ndarray[Any, Any], x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    (r, m), n = a.shape, x.shape[0]
    columns = min(m, _COLUMNS)
    rows = max(_WRITTEN, min(_WITHOUT_COPY // (columns * r), _FOUND // r) // _WRITTEN * _WRITTEN)
    found = np.empty((n, r), x.dtype)
    more = np.empty((min(n, rows), r), x.dtype)
    for row in range(0, n, rows):
        part, block = found[row : row + rows], x[row : row + rows]
        np.matmul(block[:, :columns], a[:, :columns].T, out=part)
        for column in range(columns, m, columns):
            beyond = slice(column, column + columns)
            part += np.matmul(block[:, beyond], a[:, beyond].T, out=more[: len(part)])
    return np.ascontiguousarray(found.T)


def product_with_columns(a: Array, x: Array, torch: ModuleType) -> Array:
    """Return a x for a (r, n), x (n, m)."""
    if x.shape[1] < _WIDE:
        return torch.mm(a, x)
    total = torch.zeros((a.shape[0], x.shape[1]), dtype=x.dtype)
    for columns, rows in zip(a.split(_READ, dim=1), x.split(_READ), strict=True):
        total.addmm_(columns, rows)
    return total


def _is_for_numpy(x: Array, rank: int) -> bool:
    return rank <= FEW and x.dtype.is_floating_point and x.element_size() >= 4


def _without_copies(torch: ModuleType) -> bool:
    """Return whether NumPy's library multiplies few rows without copying the large matrix, as for newer processors."""
    return bool(torch.backends.cpu.get_cpu_capability() == "AVX512")


def _whole_rows(left: Array) -> int:
    """Return how many rows of a product are for products of several rows; the others are sums of outer products.

    The product of one column and one row is nothing but an outer product, which is the fastest there is.
    """
    rows: int = left.shape[0]
    return 0 if left.shape[1] == 1 else rows // _WRITTEN * _WRITTEN


def _has_whole_pages(x: Array) -> bool:
    """Return whether rows fill pages of memory: several of them at a time are then read as fast as one by one."""
    return bool(x.shape[1] * x.element_size() % _PAGE == 0)


def _blocks(first: int, end: int, columns: int, most: int = _BLOCK) -> Iterator[_Block]:
    """Yield parts of rows first .. end - 1, of at most so many numbers: at least a few rows each."""
    width = max(1, min(columns, most // _WRITTEN))
    length = most // width // _WRITTEN * _WRITTEN
    for row in range(first, end, length):
        for column in range(0, columns, width):
            yield slice(row, min(row + length, end)), slice(column, min(column + width, columns))
