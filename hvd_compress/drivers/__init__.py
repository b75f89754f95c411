"""Drivers: what answers an exchange's requests; those of frameworks have rooms of their own (`hvd_compress.torch`)."""

from .simulate import Simulator
from .transport import LoopbackTransport, RoundTrip, Transport, complete

__all__ = ["LoopbackTransport", "RoundTrip", "Simulator", "Transport", "complete"]
