"""Quantisers: what every worker's x becomes on the wire, and how small integers are packed into bytes.

Every shape is taken flat, in C order, and comes back in its own shape. Uniform numbers lie in (0, 1).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def qsgd(x: np.ndarray, levels: int, bucket: int, uniforms: np.ndarray, norm: str = "l2") -> np.ndarray:
    """Return x on a random neighbour in the grid of s = `levels` steps, per bucket (Alistarh et al. 2017, eq. 4).

    Args:
        x: what is quantised.
        levels: steps between 0 and the norm.
        bucket: elements that share a norm; the last bucket may have fewer.
        uniforms: one number u an element; the level is floor(s v / norm + u).
        norm: "l2" or "max".
    """
    v, u = _flat(x), _flat(uniforms)
    out = np.zeros(v.size)
    for start in range(0, v.size, bucket):
        own = slice(start, start + bucket)
        largest = np.max(np.abs(v[own]))
        if largest == 0:
            continue
        scale = largest if norm == "max" else largest * np.sqrt(np.sum((v[own] / largest) ** 2))
        out[own] = scale * (_signed_levels(v[own], scale, levels, u[own]) / levels)
    return out.reshape(np.shape(x))


def shared_scale(
    xs: Sequence[np.ndarray], levels: int, bucket: int, uniforms: Sequence[np.ndarray]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the mean of max-norm QSGD with one scale per bucket for all workers, and what each contributed.

    Args:
        xs: by worker.
        levels: steps between 0 and the scale.
        bucket: elements that share a scale; the last bucket may have fewer.
        uniforms: by worker, one number u an element; the level is floor(s v / scale + u).
    """
    vs, us = [_flat(x) for x in xs], [_flat(u) for u in uniforms]
    mean = np.zeros(vs[0].size)
    sent = [np.zeros(vs[0].size) for _ in xs]
    for start in range(0, vs[0].size, bucket):
        own = slice(start, start + bucket)
        scale = max(np.max(np.abs(v[own])) for v in vs)
        if scale == 0:
            continue
        integers = [_signed_levels(v[own], scale, levels, u[own]) for v, u in zip(vs, us, strict=True)]
        mean[own] = np.sum(integers, axis=0) * (scale / levels) / len(xs)
        for rank, integer in enumerate(integers):
            sent[rank][own] = integer * (scale / levels)
    return mean.reshape(np.shape(xs[0])), [s.reshape(np.shape(xs[0])) for s in sent]


def terngrad(x: np.ndarray, uniforms: np.ndarray, clip: float = 2.5) -> np.ndarray:
    """Return s sign(g) with probability |g| / s and 0 elsewhere, s = max|g| of the clipped x (Wen et al. 2017, eq. 5).

    A positive g is kept where 1 - u <= |g| / s, a negative one where u < |g| / s: that is s floor(g / s + u).

    Args:
        x: what is quantised.
        uniforms: one number an element.
        clip: g is x within plus and minus this many standard deviations of x around its mean; 0 leaves x as it is.
            A constant x has a deviation of 0, and becomes 0.
    """
    g = _flat(x)
    if g.size == 0:
        return g.reshape(np.shape(x))
    if clip:
        limit = clip * np.sqrt(np.mean((g - np.mean(g)) ** 2))
        g = np.clip(g, -limit, limit)
    scale = np.max(np.abs(g))
    if scale == 0:
        return np.zeros(np.shape(x))
    u = _flat(uniforms)
    keep = np.where(g > 0, 1.0 - u <= np.abs(g) / scale, u < np.abs(g) / scale)
    return np.where(keep, scale * np.sign(g), 0.0).reshape(np.shape(x))


def natural(x: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """Return the power of two 2^e below |x| or the one above it, up where u < |x| / 2^e - 1 (Horvath et al. 2019).

    Zero stays zero. The variance is (|x| - 2^e) (2^(e+1) - |x|) <= |x|^2 / 8 an element.
    """
    v = np.asarray(x, np.float64)
    fraction, exponent = np.frexp(np.abs(v))  # |x| = f 2^exponent with f in [1/2, 1)
    up = np.asarray(uniforms, np.float64) < 2.0 * fraction - 1.0
    power = np.ldexp(1.0, exponent - 1 + up)
    return np.where(v == 0, 0.0, np.copysign(power, v))


def one_bit(x: np.ndarray, blocks: Sequence[int]) -> np.ndarray:
    """Return, per block, the mean of its elements >= 0 in their place and of those < 0 in theirs (Seide et al. 2014).

    Args:
        x: what is quantised.
        blocks: the length of each block, one after the other.
    """
    v = _flat(x)
    out = np.zeros(v.size)
    for own in _slices(blocks, v.size):
        part = v[own]
        for side in (part >= 0, part < 0):
            if side.any():
                out[own][side] = np.mean(part[side])
    return out.reshape(np.shape(x))


def scaled_sign(x: np.ndarray, blocks: Sequence[int]) -> np.ndarray:
    """Return mean|x| * sign(x) per block, with sign(0) = +1 (Zheng, Huang, Kwok 2019).

    Args:
        x: what is quantised.
        blocks: the length of each block, one after the other.
    """
    v = _flat(x)
    out = np.zeros(v.size)
    for own in _slices(blocks, v.size):
        if v[own].size:
            out[own] = np.mean(np.abs(v[own])) * np.where(v[own] >= 0, 1.0, -1.0)
    return out.reshape(np.shape(x))


def pack(values: Sequence[int], width: int) -> bytes:
    """Return the integers in `width` bits each, value i in bits [i * width, (i + 1) * width), lowest bit first.

    Bit b of the string is bit b % 8 of byte b // 8. Zeros fill up the last group of 8 values: each takes `width` bytes.
    """
    packed = bytearray(-(-len(values) // 8) * width)
    for i, value in enumerate(values):
        assert 0 <= value < 2**width, f"{value} does not fit into {width} bits"
        for bit in range(width):
            place = i * width + bit
            packed[place // 8] |= (int(value) >> bit & 1) << place % 8
    return bytes(packed)


def unpack(packed: bytes, width: int, count: int) -> list[int]:
    """Return the first `count` integers that `pack` wrote."""
    return [
        sum((packed[place // 8] >> place % 8 & 1) << bit for bit, place in enumerate(range(i * width, (i + 1) * width)))
        for i in range(count)
    ]


def _signed_levels(v: np.ndarray, scale: float, levels: int, uniforms: np.ndarray) -> np.ndarray:
    """Return floor(s v / scale + u); no rounding error takes it beyond s."""
    return np.asarray(np.clip(np.floor(levels * (v / scale) + uniforms), -levels, levels))


def _flat(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, np.float64).ravel()


def _slices(lengths: Sequence[int], size: int) -> list[slice]:
    """Return the blocks of these lengths, which cover `size` elements."""
    ends = [int(end) for end in np.cumsum(lengths)]
    assert (ends[-1] if ends else 0) == size, "blocks must cover x"
    return [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]
