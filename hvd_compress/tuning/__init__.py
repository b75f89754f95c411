"""Tuning: measurements on real gradients, from which settings follow."""

from .sketch import SketchTrial, SketchTuning, tune_sketch

__all__ = ["SketchTrial", "SketchTuning", "tune_sketch"]
