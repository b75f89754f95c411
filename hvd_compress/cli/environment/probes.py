"""The child's side: `python -m hvd_compress.cli.environment.probes NAME` imports and starts what may take it down.

It prints one JSON object a line: {"begin": stage}, then {"end": stage, "found": {...}}, then the next stage. An
exception becomes {"error": text}; when the process dies, the stage that began last is the one that did it.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

from ...horovod import build, extension

MARK = "hvd_compress probe: "

Found = dict[str, Any]


def _say(**line: Any) -> None:
    print(MARK + json.dumps(line), flush=True)


@contextlib.contextmanager
def _stage(name: str) -> Iterator[Found]:
    found: Found = {}
    _say(begin=name)
    yield found
    _say(end=name, found=found)


def _torch() -> None:
    with _stage("torch") as found:
        import torch

        if torch.version.cuda:
            found["accelerator"] = f"CUDA {torch.version.cuda}"
        elif torch.version.hip:
            found["accelerator"] = f"ROCm {torch.version.hip}"
        count = torch.cuda.device_count()
        found.update(version=torch.__version__, devices=[torch.cuda.get_device_name(index) for index in range(count)])
    _horovod("torch")


def _tensorflow() -> None:
    with _stage("tensorflow") as found:
        import tensorflow as tf

        accelerator = "CUDA" if tf.test.is_built_with_cuda() else ""
        devices = [device.name for device in tf.config.list_physical_devices("GPU")]
        found.update(version=tf.__version__, accelerator=accelerator, devices=devices)
    _horovod("tensorflow")


def _horovod(framework: str) -> None:
    if not build.installed().extension(framework).built:
        return
    with _stage("extension") as found:
        module = extension.load(framework)
        found["transports"] = extension.transports(module)
        found["mpi"] = extension.mpi_library() if module.mpi_built() else ""
    with _stage("start"):
        module.init()
        module.shutdown()


def _mpi4py() -> None:
    with _stage("mpi4py") as found:
        import mpi4py

        mpi4py.rc.initialize = False
        from mpi4py import MPI

        found.update(version=mpi4py.__version__, mpi=MPI.Get_library_version().strip("\0 \n"))
    with _stage("start"):
        MPI.Init()
        MPI.Finalize()


PROBES: dict[str, Callable[[], None]] = {"torch": _torch, "tensorflow": _tensorflow, "mpi4py": _mpi4py}


if __name__ == "__main__":
    try:
        PROBES[sys.argv[1]]()
    except Exception as error:  # whatever an import raises is a fact
        text = (str(error).strip() or "no message").splitlines()[0]
        _say(error=f"{type(error).__name__}: {text}")
        sys.exit(1)
    _say(begin="")
