"""Count sketches: linear tables in which the largest coordinates of a sum of gradients can be found."""

from .count_sketch import CountSketch, Hashing
from .hashes import Hashes
from .sizing import SketchSize, sketch_size

__all__ = ["CountSketch", "Hashes", "Hashing", "SketchSize", "sketch_size"]
