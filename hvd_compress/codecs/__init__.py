"""Codecs: local ways to write a gradient in fewer bytes; each is a Horovod compressor too."""

from .cast import Cast
from .identity import Identity

__all__ = ["Cast", "Identity"]
