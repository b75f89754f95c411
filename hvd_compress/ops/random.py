"""Private random streams: the global generators of NumPy and torch are never touched."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np


def random_generator(key: Sequence[int | str]) -> np.random.Generator:
    """Return a private generator seeded by `key`, such as (seed, name, step); equal keys give equal streams."""
    digest = hashlib.sha256(repr(tuple(key)).encode()).digest()
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(int.from_bytes(digest[:16], "little"))))
