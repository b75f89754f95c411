"""Methods: published algorithms under the names their papers gave them."""

from .method import Method
from .powersgd import PowerSGD

__all__ = ["Method", "PowerSGD"]
