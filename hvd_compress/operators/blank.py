"""Memory for the mean of an operator that sends a few elements: zeros, where there is memory that is free."""

from __future__ import annotations

from ..contract import Array, Context


def blank(context: Context, dtype: str, own: Array | None) -> Array:
    """Return zeros, 1-D, as many as the gradient has elements, to put the mean into.

    Args:
        context: of the exchange; what is spare is used up.
        dtype: element type of the zeros.
        own: the gradient, or a copy of it, where nothing but the rest, if that is asked for, is made of it any more.
    """
    ops = context.ops
    for free in (context.spare, None if context.feedback else own):
        if free is not None and ops.dtype(free) == dtype:
            return ops.zero_(ops.flatten(free))
    return ops.zeros((context.spec.size,), dtype)
