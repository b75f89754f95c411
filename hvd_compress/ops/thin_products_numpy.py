"""Products with thin factors by NumPy: few rows of the large matrix at a time, without memory as large as that.

Products of so few numbers copy nothing that they multiply, and what they write stays in the cache. They say nothing of
infinities and of what is too small, as torch does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

Matrix: TypeAlias = np.ndarray[Any, Any]
# Rows and columns.
Block: TypeAlias = tuple[slice, slice]

# The most rows of a thin factor, transposed, for which all this pays.
FEW = 8
# Rows of a large matrix at a time, a multiple of this many.
ROWS = 8
# Numbers written at a time, and products of numbers up to which no library shares them out among threads: roundings
# would depend on how many there are.
_WRITTEN, _FOR_ONE_THREAD = 2**16, 2**18
# The same where the product is a rank's own: NumPy's library copies nothing that it multiplies.
_OWN, _WITHOUT_COPY = 2**17, 2**19
# Of a matrix that is read: columns at a time, and numbers that come of it.
_COLUMNS, _FOUND = 2**12, 2**10


def put_product(out: Matrix, left: Matrix, right: Matrix) -> None:
    """Write left right, (n, r) times (r, m), to `out`, (n, m), r >= 1.

    By one thread, and with the same roundings on any machine of a kind, however many threads there are.
    """
    whole = whole_rows(left)
    with np.errstate(all="ignore"):
        for rows, columns in blocks(0, whole, out.shape[1], min(_WRITTEN, _FOR_ONE_THREAD // left.shape[1])):
            np.matmul(left[rows], right[:, columns], out=out[rows, columns])
        for rows, columns in blocks(whole, len(out), out.shape[1]):
            # Of a row or a few: products of a matrix and a vector would be shared out.
            rest = np.multiply(left[rows, :1], right[:1, columns], out=out[rows, columns])
            for i in range(1, left.shape[1]):
                rest += left[rows, i : i + 1] * right[i : i + 1, columns]


def subtract_product(x: Matrix, left: Matrix, right: Matrix) -> None:
    """Subtract left right, (n, r) times (r, m), from x, (n, m), r >= 1."""
    multiply: Any = np.multiply if left.shape[1] == 1 else np.matmul
    memory = np.empty(min(_OWN, x.size), x.dtype)
    with np.errstate(all="ignore"):
        for rows, columns in blocks(0, len(x), x.shape[1], min(_OWN, _WITHOUT_COPY // left.shape[1])):
            part = x[rows, columns]
            product = memory[: part.size].reshape(part.shape)
            np.subtract(part, multiply(left[rows], right[:, columns], out=product), out=part)


def product_with_rows(a: Matrix, x: Matrix) -> Matrix:
    """Return a x^T for a (r, m), x (n, m), r >= 1."""
    (r, m), n = a.shape, x.shape[0]
    columns = max(1, min(m, _COLUMNS))
    rows = max(ROWS, min(_WITHOUT_COPY // (columns * r), _FOUND // r) // ROWS * ROWS)
    found = np.empty((n, r), x.dtype)
    more = np.empty((min(n, rows), r), x.dtype)
    with np.errstate(all="ignore"):
        for row in range(0, n, rows):
            part, block = found[row : row + rows], x[row : row + rows]
            np.matmul(block[:, :columns], a[:, :columns].T, out=part)
            for column in range(columns, m, columns):
                beyond = slice(column, column + columns)
                part += np.matmul(block[:, beyond], a[:, beyond].T, out=more[: len(part)])
    return np.ascontiguousarray(found.T)


def whole_rows(left: Any) -> int:
    """Return how many rows of a product are for products of several rows; the others are sums of outer products.

    The product of one column and one row is nothing but an outer product, which is the fastest there is.
    """
    rows: int = left.shape[0]
    return 0 if left.shape[1] == 1 else rows // ROWS * ROWS


def blocks(first: int, end: int, columns: int, most: int = _WRITTEN) -> Iterator[Block]:
    """Yield parts of rows first .. end - 1, of at most so many numbers: at least a few rows each."""
    width = max(1, min(columns, most // ROWS))
    length = most // width // ROWS * ROWS
    for row in range(first, end, length):
        for column in range(0, columns, width):
            yield slice(row, min(row + length, end)), slice(column, min(column + width, columns))
