"""Monitors: how alike the workers are, which is what decides whether one may choose for all."""

from .contraction import contraction
from .index_distance import index_distance
from .memory_cosine import memory_cosine
from .similarities import similarities, similarities_of
from .similarity import Similarity, SimilarityExchange, similarity

__all__ = [
    "Similarity",
    "SimilarityExchange",
    "contraction",
    "index_distance",
    "memory_cosine",
    "similarities",
    "similarities_of",
    "similarity",
]
