"""What arrays are, and how parts of them are asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Array = Any
# From (start, stop) to these elements of something.
Cut = Callable[[int, int], Array]
