"""Private random streams: the global generators of NumPy and torch are never touched."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, final

import numpy as np

_PER_WORD = 4


def random_generator(key: Sequence[int | str]) -> np.random.Generator:
    """Return a private generator seeded by `key`, such as (seed, name, step); equal keys give equal streams."""
    return np.random.Generator(np.random.Philox(_seed(key)))


@final
class ShortStream:
    """Random 16-bit numbers, -2^15 .. 2^15 - 1, of a key: number i is the same however the stream is cut.

    They are those of SFC64 seeded by the key, four of every 64 bits, lowest first: a third of the time that as many
    float32 take. Cuts that follow one another draw every number once, where they are multiples of 4 long.
    """

    def __init__(self, key: Sequence[int | str]) -> None:
        self._key = tuple(key)
        self._bits = np.random.SFC64(_seed(self._key))
        self._drawn = 0

    def __call__(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Return numbers start .. stop - 1 of the stream, as int16."""
        first, last = start // _PER_WORD, -(-stop // _PER_WORD)
        if first < self._drawn:
            self._bits, self._drawn = np.random.SFC64(_seed(self._key)), 0
        self._bits.random_raw(first - self._drawn, output=False)
        words = self._bits.random_raw(last - first)
        self._drawn = last
        skipped = start - _PER_WORD * first
        return words.astype("<u8", copy=False).view("<i2")[skipped : skipped + stop - start]


def _seed(key: Sequence[int | str]) -> np.random.SeedSequence:
    digest = hashlib.sha256(repr(tuple(key)).encode()).digest()
    return np.random.SeedSequence(int.from_bytes(digest[:16], "little"))
