"""Micro-benchmark: one gradient, one compressor, split into encoding, collectives and decoding."""

from .measure import Point, measure
from .settings import MicroSettings

__all__ = ["MicroSettings", "Point", "measure"]
