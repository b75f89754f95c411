"""BySize: a compressor for small parameters and another for large ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from ..contract import Spec, check_at_least
from ..errors import ConfigurationError
from .policy import Policy


@final
@dataclass(frozen=True, repr=False)
class BySize(Policy):
    """Choose by number of elements: the first limit that the parameter has fewer elements than.

    Args:
        rules: (limit, operator or codec) pairs, or a mapping of these, limits ascending, in elements.
        otherwise: operator or codec for parameters of the last limit's size or above.

    Raises:
        ConfigurationError: a limit is no whole number, or limits do not ascend.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        limits = [limit for limit, _ in self.rules]
        if limits != sorted(set(limits)):
            raise ConfigurationError(f"BySize(rules={self.rules!r}): limits must ascend.")

    def check_condition(self, condition: Any) -> None:
        check_at_least(self, "rules", condition, 1)

    def meets(self, condition: Any, name: str, spec: Spec) -> bool:
        return spec.size < int(condition)
