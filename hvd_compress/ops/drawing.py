"""Random numbers: the same for the same key on every rank, library and device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np

from .array import Array, Cut
from .random import ShortStream, random_generator

# From a key, made of numbers and names, to what is drawn from its random stream.
Draw = Callable[[Sequence[Any]], np.ndarray[Any, Any]]


class Drawing(ABC):
    """What an array library draws at random. A key is made of numbers, names and 0-D integer arrays."""

    @abstractmethod
    def from_numpy(self, x: np.ndarray[Any, Any]) -> Array:
        """Return a copy of a NumPy array on this device."""

    @abstractmethod
    def cast(self, x: Array, dtype: str) -> Array:
        """Return x in another element type; x itself where it has that type already."""

    @abstractmethod
    def scale_and_shift_(self, x: Array, scale: float, shift: float) -> Array:
        """Return scale * x + shift."""

    @final
    def normal(self, shape: Sequence[int], dtype: str, key: Sequence[Any]) -> Array:
        """Return standard normal numbers."""

        def draw(key: Sequence[Any]) -> np.ndarray[Any, Any]:
            return random_generator(key).standard_normal(tuple(shape), dtype=np.float64)

        return self.cast(self.drawn(draw, shape, "float64", key), dtype)

    @final
    def uniform(self, shape: Sequence[int], dtype: str, key: Sequence[Any]) -> Array:
        """Return numbers uniform in [0, 1); the same for the same key on every rank, library and device.

        They have 24 random bits, so that every element type from float32 up holds them exactly.
        """

        def draw(key: Sequence[Any]) -> np.ndarray[Any, Any]:
            return random_generator(key).random(tuple(shape), dtype=np.float32)

        return self.cast(self.drawn(draw, shape, "float32", key), dtype)

    @final
    def signs(self, shape: Sequence[int], dtype: str, key: Sequence[Any]) -> Array:
        """Return independent +1 and -1; the same for the same key on every rank, library and device."""

        def draw(key: Sequence[Any]) -> np.ndarray[Any, Any]:
            coins = random_generator(key).integers(0, 2, tuple(shape), dtype=np.int8)
            return (2 * coins - 1).astype(np.dtype(dtype))

        return self.drawn(draw, shape, dtype, key)

    @final
    def sample(self, size: int, count: int, key: Sequence[Any]) -> Array:
        """Return `count` different positions of 0 .. size - 1, ascending, as int64; the same for the same key."""

        def draw(key: Sequence[Any]) -> np.ndarray[Any, Any]:
            chosen = random_generator(key).choice(size, count, replace=False, shuffle=False)
            return np.sort(chosen).astype(np.int64)

        return self.drawn(draw, (count,), "int64", key)

    def drawn(self, draw: Draw, shape: Sequence[int], dtype: str, key: Sequence[Any]) -> Array:
        """Return what `draw` takes from the random stream of a key: an array of this shape and element type."""
        del shape, dtype
        return self.from_numpy(draw(key))

    @final
    def thresholds(self, dtype: str, key: Sequence[Any]) -> Cut:
        """Return a function that cuts thresholds for rounding at random from an endless row of them.

        They are independent, each of (2 k + 1) / 2^17 for k = 0 .. 2^16 - 1 as likely, so that floor(x + u) has the
        mean x to within 2^-17; and is x, for every whole x up to 127, also in float32. Threshold i is the same for the
        same key on every rank, library and device; cuts best follow one another.
        """
        numbers = self.short_stream(key)

        def cut(start: int, stop: int) -> Array:
            return self.scale_and_shift_(self.cast(numbers(start, stop), dtype), 2.0**-16, 0.5 + 2.0**-17)

        return cut

    def short_stream(self, key: Sequence[Any]) -> Cut:
        """Return `ShortStream(key)` on this device."""

        def cut(start: int, stop: int) -> Array:
            return self.drawn(lambda full: ShortStream(full)(start, stop), (stop - start,), "int16", key)

        return cut
