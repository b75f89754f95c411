"""Products with thin factors, by torch on a processor or by NumPy for it: a few rows of the large matrix at a time.

Where the large matrix is not in the cache yet, one thread of NumPy writes and subtracts as fast as two of torch's. It
writes by one thread also where torch has many: what two ranks write must not depend on how many each has.

Roundings must not tell ranks apart. With up to `FEW` columns what is written depends on numbers and shapes alone, not
on layouts or threads; with more, not on layouts. What is read or subtracted from is a rank's own.
"""

from __future__ import annotations

from types import ModuleType

from . import thin_products_numpy as by_numpy
from .array import Array
from .thin_products_numpy import FEW, ROWS, blocks, whole_rows

# The most rows of a thin factor, transposed.
THIN = 64
# Rows of a large matrix at a time, where it is read.
_READ = 16
# Columns from which adding up products, one for every few rows, costs less than what it saves.
_WIDE = 2**11
_PAGE = 2**12


def put_product(out: Array, left: Array, right: Array, torch: ModuleType) -> None:
    """Write left right, (n, r) times (r, m), to row-major `out`, (n, m), r >= 1."""
    left, right, out = left.detach(), right.detach().contiguous(), out.detach()
    if _is_for_numpy(left, left.shape[1]):
        by_numpy.put_product(out.numpy(), left.numpy(), right.numpy())
        return
    whole = whole_rows(left)
    for rows, columns in blocks(0, whole, out.shape[1]):
        torch.mm(left[rows], right[:, columns], out=out[rows, columns])
    for rows, columns in blocks(whole, out.shape[0], out.shape[1]):
        rest = torch.mul(left[rows, :1], right[:1, columns], out=out[rows, columns])
        for i in range(1, left.shape[1]):
            rest.addcmul_(left[rows, i : i + 1], right[i : i + 1, columns])


def subtract_product(x: Array, left: Array, right: Array, torch: ModuleType) -> None:
    """Subtract left right, (n, r) times (r, m), from x, (n, m), r >= 1."""
    left, right, x = left.detach(), right.detach().contiguous(), x.detach()
    whole = whole_rows(left)
    if left.shape[1] <= FEW and whole and (_has_whole_pages(x) or torch.get_num_threads() > 2):
        parts = left[:whole].unflatten(0, (-1, ROWS))
        x[:whole].unflatten(0, (-1, ROWS)).baddbmm_(parts, right.expand(len(parts), -1, -1), alpha=-1.0)
    elif _is_for_numpy(left, left.shape[1]):
        by_numpy.subtract_product(x[:whole].numpy(), left[:whole].numpy(), right.numpy())
    else:
        for rows, columns in blocks(0, whole, x.shape[1]):
            x[rows, columns].addmm_(left[rows], right[:, columns], alpha=-1.0)
    if whole < x.shape[0]:
        for i in range(left.shape[1]):
            x[whole:].addcmul_(left[whole:, i : i + 1], right[i : i + 1], value=-1.0)


def product_with_rows(a: Array, x: Array, torch: ModuleType) -> Array:
    """Return a x^T for a (r, m), x (n, m), r >= 1."""
    if _is_for_numpy(x, a.shape[0]) and torch.get_num_threads() == 1 and (a.shape[0] == 1 or _without_copies(torch)):
        return torch.from_numpy(by_numpy.product_with_rows(a.detach().numpy(), x.detach().numpy()))
    whole = x.shape[0] // _READ * _READ
    if not whole:
        return torch.mm(a, x.t())
    parts = x[:whole].unflatten(0, (-1, _READ))
    found = torch.bmm(a.expand(len(parts), -1, -1), parts.mT).transpose(0, 1).reshape(a.shape[0], whole)
    return found if whole == x.shape[0] else torch.cat([found, torch.mm(a, x[whole:].t())], dim=1)


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


def _has_whole_pages(x: Array) -> bool:
    """Return whether rows fill pages of memory: several of them at a time are then read as fast as one by one."""
    return bool(x.shape[1] * x.element_size() % _PAGE == 0)
