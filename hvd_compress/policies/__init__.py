"""Policies: which compressor for which parameter."""

from .by_dimension import ByDimension
from .by_name import ByName
from .by_size import BySize
from .policy import Policy

__all__ = ["ByDimension", "ByName", "BySize", "Policy"]
