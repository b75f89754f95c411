"""Sizes of gradients, as they are typed: 4K, 256M."""

from __future__ import annotations

import re

from ..errors import ConfigurationError

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


def parse_size(text: str) -> int:
    """Return a number of bytes.

    Args:
        text: a whole number and K, M or G for 2^10, 2^20 or 2^30 bytes.

    Raises:
        ConfigurationError: it is not of this form, or 0.
    """
    found = re.fullmatch(r"(\d+)([KMG]?)B?", text.strip().upper())
    if found is None or not int(found[1]):
        raise ConfigurationError(f"Size {text!r}: give bytes as 4K, 256M or 1G.")
    return int(found[1]) * _UNITS[found[2]]


def size_range(smallest: int, largest: int, factor: int) -> tuple[int, ...]:
    """Return `smallest`, times `factor` again and again, as far as `largest`.

    Raises:
        ConfigurationError: the factor is below 2, or the range is empty.
    """
    if factor < 2 or smallest > largest:
        raise ConfigurationError(
            f"Sizes from {smallest} to {largest} bytes by a factor of {factor}: give a factor of at least 2, and the "
            "smaller size first."
        )
    found = [smallest]
    while found[-1] * factor <= largest:
        found.append(found[-1] * factor)
    return tuple(found)


def as_text(nbytes: int) -> str:
    """Return a number of bytes in the largest unit that it is a multiple of: 4K."""
    unit = next(name for name in ("G", "M", "K", "") if nbytes % _UNITS[name] == 0)
    return f"{nbytes // _UNITS[unit]}{unit}"
