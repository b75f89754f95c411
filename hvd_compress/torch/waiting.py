"""Waiting for a collective of Horovod without taking the core that it needs."""

from __future__ import annotations

import time
from typing import Any

import horovod.torch as stock

# Seconds.
_LOOK_AGAIN = 5e-5


def wait_for(handle: int) -> Any:
    """Return what a collective started by `horovod.torch` gives, sleeping until it is there.

    Horovod's own waiting asks without a pause: where processes are more than cores, it holds up the threads, its own
    and those of other ranks, that it waits for, sometimes for many seconds.
    """
    while not stock.poll(handle):
        time.sleep(_LOOK_AGAIN)
    return stock.synchronize(handle)
