"""Description: what a compressor does to a model, from shapes alone."""

from .describe import describe
from .table import Description, UnitCost

__all__ = ["Description", "UnitCost", "describe"]
