"""What `tf.Module` must not see: it looks for variables in lists, and for functions to put into SavedModels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final


@final
@dataclass(frozen=True)
class Untracked:
    """Hides a value from what TensorFlow tracks.

    Args:
        value: anything.
    """

    value: Any
