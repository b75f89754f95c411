"""`python -m workers.run FOLDER`: one rank of a launch, as FOLDER/request.json describes it."""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from . import harness

Gather = Callable[[bool], Sequence[bool]]


def main(folder: Path) -> None:
    """Start this rank's session, run the checks asked for, and end."""
    faulthandler.dump_traceback_later(harness.START_SECONDS, exit=True)
    warnings.simplefilter("error")
    request = json.loads((folder / "request.json").read_text())
    start = {"horovod": _start_horovod, "tensorflow": _start_tensorflow, "mpi4py": _start_mpi4py}[request["session"]]
    rank, size, gather, close = start(request["ranks"])
    if size != request["ranks"]:
        raise RuntimeError(f"{request['ranks']} ranks were asked for, the launcher started {size}.")
    for module in request["modules"]:
        importlib.import_module(module)
    if not harness.run([harness.CHECKS[name] for name in request["checks"]], folder, rank, gather):
        os._exit(1)  # other ranks may be in the middle of something: there is no orderly way out
    faulthandler.dump_traceback_later(harness.SECONDS, exit=True)
    close()
    faulthandler.cancel_dump_traceback_later()


def _start_horovod(ranks: int) -> tuple[int, int, Gather, Callable[[], None]]:
    import horovod.torch as stock
    import torch

    from hvd_compress.torch.waiting import wait_for

    from . import process_sets

    torch.set_num_threads(1)
    stock.init(process_sets=process_sets.make(ranks))

    def gather(flag: bool) -> Sequence[bool]:
        handle = stock.allgather_async(torch.tensor([int(flag)]), name="harness")
        return [bool(x) for x in wait_for(handle).tolist()]

    return stock.rank(), stock.size(), gather, stock.shutdown


def _start_tensorflow(ranks: int) -> tuple[int, int, Gather, Callable[[], None]]:
    import horovod.tensorflow as stock
    import tensorflow as tf

    from . import process_sets

    stock.init(process_sets=process_sets.make(ranks))

    def gather(flag: bool) -> Sequence[bool]:
        return [bool(x) for x in stock.allgather(tf.constant([int(flag)]), name="harness").numpy()]

    return stock.rank(), stock.size(), gather, stock.shutdown


def _start_mpi4py(ranks: int) -> tuple[int, int, Gather, Callable[[], None]]:
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    return comm.Get_rank(), comm.Get_size(), comm.allgather, lambda: None


if __name__ == "__main__":
    main(Path(sys.argv[1]))
