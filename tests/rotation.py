"""Which of many like cases a run tries: a share of them in rotation, or all with HVD_COMPRESS_TEST_EVERY=1.

Operations of TensorFlow cost many times those of NumPy or torch on small arrays. So every row takes part in some laws,
every law is tried for some rows and every number of workers, and which these are follows from names alone.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

# Of the rows, one in so many is tried in TensorFlow for each law.
TENSORFLOW_SHARE = 8

EVERY = os.environ.get("HVD_COMPRESS_TEST_EVERY") == "1"


def in_turn(cases: Sequence[T], law: str, share: int) -> list[T]:
    """Return every `share`-th case, beginning at one that depends on the law; all of them if so asked."""
    return list(cases) if EVERY else list(cases[_place(law, share) :: share])


def chosen(options: Sequence[T], law: str, index: int) -> list[T]:
    """Return the option whose turn it is for case `index`; all of them if so asked."""
    return list(options) if EVERY else [options[(index + _place(law, len(options))) % len(options)]]


def _place(law: str, among: int) -> int:
    return zlib.crc32(law.encode()) % among
