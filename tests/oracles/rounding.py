"""Rounding to binary floating-point formats, to the nearest number and ties to even (IEEE 754-2019, 4.3.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Format:
    """A binary format: significant bits, and the exponents of its smallest and largest normal numbers."""

    bits: int
    smallest_exponent: int
    largest_exponent: int

    @property
    def largest(self) -> float:
        """The largest finite number."""
        return (2.0 - 2.0 ** (1 - self.bits)) * 2.0**self.largest_exponent

    @property
    def unit_roundoff(self) -> float:
        """The largest relative error of rounding a normal number."""
        return 2.0**-self.bits


FLOAT16 = Format(bits=11, smallest_exponent=-14, largest_exponent=15)
BFLOAT16 = Format(bits=8, smallest_exponent=-126, largest_exponent=127)
FORMATS = {"float16": FLOAT16, "bfloat16": BFLOAT16}


def rounded(x: np.ndarray, form: Format) -> np.ndarray:
    """Return the finite numbers x rounded to `form`, as float64; beyond its range they become infinite."""
    x = np.asarray(x, np.float64)
    _, exponent = np.frexp(x)  # |x| = f 2^exponent with f in [1/2, 1)
    exponent = np.maximum(exponent - 1, form.smallest_exponent)
    spacing = np.ldexp(1.0, exponent - (form.bits - 1))
    nearest = np.rint(x / spacing) * spacing
    return np.where(np.abs(nearest) > form.largest, np.copysign(np.inf, x), nearest)
