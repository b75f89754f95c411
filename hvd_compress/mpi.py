"""NumPy gradients over mpi4py: `from hvd_compress.mpi import GradientExchange`."""

from .drivers.mpi import GradientExchange

__all__ = ["GradientExchange"]
