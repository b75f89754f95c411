"""Switches: what the user's environment turns on or off."""

from __future__ import annotations

import os

from ..errors import ConfigurationError


def is_on(name: str, *, default: bool, purpose: str) -> bool:
    """Return whether an environment variable is 1 rather than 0; where it is not set or empty, the default.

    Args:
        name: of the variable.
        default: without it.
        purpose: what 1 is for, as in "for kernels made by Triton".

    Raises:
        ConfigurationError: it has another value.
    """
    value = os.environ.get(name, "")
    if value not in ("", "0", "1"):
        raise ConfigurationError(f"{name}={value!r} is neither 0 nor 1; set it to 1 {purpose}, to 0 for none of it.")
    return value == "1" if value else default
