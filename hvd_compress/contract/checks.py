"""Checks of settings that every part shares, so that the same fault always reads the same."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..errors import ConfigurationError
from .codec import Codec
from .operator import Operator


def check_at_least(owner: object, name: str, value: object, minimum: int) -> None:
    """Raise unless `value` is a whole number >= `minimum`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ConfigurationError(
            f"{type(owner).__name__}({name}={value!r}): {name} must be a whole number of at least {minimum}."
        )


def check_finite(owner: object, name: str, value: object, minimum: float = -math.inf) -> None:
    """Raise unless `value` is a finite number >= `minimum`."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < minimum:  # type: ignore[arg-type, operator]
        bound = "" if minimum == -math.inf else f" of at least {minimum:g}"
        raise ConfigurationError(f"{type(owner).__name__}({name}={value!r}): {name} must be a finite number{bound}.")


def check_fraction(owner: object, name: str, value: object, *, zero: bool = False, one: bool = True) -> None:
    """Raise unless `value` is a number between 0 and 1; `zero` and `one` say whether these are in the range."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    inside = number and (0 < value < 1 or (zero and value == 0) or (one and value == 1))  # type: ignore[operator]
    if not inside:
        bounds = f"{'from' if zero else 'above'} 0 {'up to' if one else 'and below'} 1"
        raise ConfigurationError(f"{type(owner).__name__}({name}={value!r}): {name} must be a number {bounds}.")


def check_choice(owner: object, name: str, value: object, choices: Sequence[str]) -> None:
    """Raise unless `value` is one of `choices`."""
    if value not in choices:
        known = ", ".join(repr(choice) for choice in choices)
        raise ConfigurationError(f"{type(owner).__name__}({name}={value!r}): {name} must be one of {known}.")


def check_codec(owner: object, value: object) -> None:
    """Raise unless `value` is a codec, an instance."""
    if not isinstance(value, Codec):
        raise ConfigurationError(
            f"{type(owner).__name__}({value!r}): it must carry a codec, an instance such as Cast('float16')."
        )


def check_remembered(owner: object, value: object) -> None:
    """Raise unless a memory around `value` can tell what was not sent: what adds to the update must go around it."""
    check_compressor(owner, value)
    if isinstance(value, Operator) and (value.has_momentum or value.needs_parameters):
        raise ConfigurationError(
            f"{type(owner).__name__}({value!r}): momentum and weight decay add to the update what was never in the "
            f"gradient, so that a residual around them is wrong; put {type(owner).__name__} inside of them."
        )


def check_compressor(owner: object, value: object) -> None:
    """Raise unless `value` is an operator or a codec, an instance."""
    if not isinstance(value, (Operator, Codec)):
        raise ConfigurationError(
            f"{type(owner).__name__}({value!r}): it must wrap a compressor, an instance such as Cast('float16')."
        )
