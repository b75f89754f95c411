"""Arithmetic modulo the prime 2^31 - 1, whose products fit into int64."""

from __future__ import annotations

from collections.abc import Sequence

from ...contract import Array

PRIME = 2**31 - 1


def polynomial(x: Array, coefficients: Sequence[int]) -> Array:
    """Return c_n x^n + ... + c_1 x + c_0 modulo PRIME, for coefficients (c_n, ..., c_0).

    x is int64 and, like every coefficient, in 0 .. PRIME - 1: no number on the way reaches 2^62.
    """
    first, *others = coefficients
    value = first
    for coefficient in others:
        value = (value * x + coefficient) % PRIME
    return value
