"""Products with thin factors, by torch on a processor: a few rows of the large matrix at a time, all in one call.

Products of so few rows go to kernels that do not copy what they multiply, as those for large matrices do; and their
rows stay in the cache, where many rows of a power of 2 of columns would push each other out.
"""

from __future__ import annotations

from types import ModuleType

from .base import Array

# The most rows of a thin factor: with more, the kernels for large matrices are as fast.
THIN = 8
# Rows of a large matrix at a time, where it is written and where it is read.
_WRITTEN, _READ = 8, 16
# Columns from which adding up products, one for every few rows, costs less than what it saves.
_WIDE = 2**11


def put_product(out: Array, left: Array, right: Array, torch: ModuleType) -> None:
    """Write left right, (n, r) times (r, m), to `out`, (n, m)."""
    if left.shape[1] == 1:
        torch.mul(left, right, out=out)
        return
    whole = out.shape[0] // _WRITTEN * _WRITTEN
    if whole:
        blocks = left[:whole].unflatten(0, (-1, _WRITTEN))
        torch.bmm(blocks, right.expand(len(blocks), -1, -1), out=out[:whole].unflatten(0, (-1, _WRITTEN)))
    if whole < out.shape[0]:
        torch.mm(left[whole:], right, out=out[whole:])


def subtract_product(x: Array, left: Array, right: Array) -> None:
    """Subtract left right, (n, r) times (r, m), from x, (n, m)."""
    if left.shape[1] == 1:
        x.addcmul_(left, right, value=-1.0)
        return
    whole = x.shape[0] // _WRITTEN * _WRITTEN
    if whole:
        blocks = left[:whole].unflatten(0, (-1, _WRITTEN))
        x[:whole].unflatten(0, (-1, _WRITTEN)).baddbmm_(blocks, right.expand(len(blocks), -1, -1), alpha=-1.0)
    if whole < x.shape[0]:
        x[whole:].addmm_(left[whole:], right, alpha=-1.0)


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
