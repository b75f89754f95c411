"""Numbers of few bits moved together and apart again within 64-bit words, by arithmetic on whole words.

Written with operators that every array library has; words hold little-endian bytes, and may be signed.
"""

from __future__ import annotations

from typing import Any

Words = Any

# Bits of words whose fields fill whole bytes once they are together, by width; others take 64.
WORD_LENGTHS = {2: 32, 4: 16}


def _mask(bits: int, spacing: int, length: int) -> int:
    """Return ones in the lowest `bits` of every `spacing` bits, up to `length`."""
    return sum(((1 << bits) - 1) << place for place in range(0, length, spacing))


def gathered(words: Words, width: int, length: int) -> Words:
    """Return words of `length` bits whose fields, one a byte, moved down to every `width` bits, `length` / 8 fields.

    What is above them is left over, and to be dropped.

    Args:
        words: a number below 2^width in every byte.
        width: 1 to 7.
        length: 16, 32 or 64.
    """
    spacing, bits = 8, width
    while spacing < length:
        # Fields in pairs: the lower one stays, the upper one moves down to its end.
        low = _mask(bits, 2 * spacing, length)
        if 2 * bits <= spacing:
            words = words | (words >> (spacing - bits))
            if 2 * spacing < length:
                words = words & _mask(2 * bits, 2 * spacing, length)
        else:
            words = (words & low) | ((words >> (spacing - bits)) & (low << bits))
        spacing, bits = 2 * spacing, 2 * bits
    return words


def spread(words: Words, width: int, length: int) -> Words:
    """Return words of `length` bits with a number in every byte: `gathered`, undone.

    Args:
        words: a number below 2^width in every `width` bits, `length` / 8 of them, and 0 above.
        width: 1 to 7.
        length: 16, 32 or 64.
    """
    spacing, bits = length // 2, length // 2 * width // 8
    while spacing >= 8:
        low = _mask(bits, 2 * spacing, length)
        if 2 * bits <= spacing:
            words = (words | (words << (spacing - bits))) & _mask(bits, spacing, length)
        else:
            words = (words & low) | ((words & (low << bits)) << (spacing - bits))
        spacing, bits = spacing // 2, bits // 2
    return words
