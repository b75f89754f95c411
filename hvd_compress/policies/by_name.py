"""ByName: a compressor for the parameters whose name has a pattern."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import Any, final

from ..contract import Spec
from ..errors import ConfigurationError
from .policy import Policy


@final
@dataclass(frozen=True, repr=False)
class ByName(Policy):
    """Choose by name: the first pattern that the parameter's name matches.

    Args:
        rules: (pattern, operator or codec) pairs, or a mapping of these; patterns as for file names ("encoder.*",
            "*.bias", "layer[0-3].*"), upper and lower case told apart.
        otherwise: operator or codec for names that match none.

    Raises:
        ConfigurationError: a pattern is no text.
    """

    def check_condition(self, condition: Any) -> None:
        if not isinstance(condition, str):
            raise ConfigurationError(f"ByName(rules=...): the pattern {condition!r} must be text, as in 'encoder.*'.")

    def meets(self, condition: Any, name: str, spec: Spec) -> bool:
        return fnmatch.fnmatchcase(name, condition)
