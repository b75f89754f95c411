"""Kernels in Triton, compiled when they are first called: one a file, and the launcher that calls them.

Importing this imports Triton; nothing but `kernels_for` does so. The same operations of torch, one after another, are
the reference that tests hold them to.
"""

from __future__ import annotations

from .launcher import TritonKernels

__all__ = ["TritonKernels"]
