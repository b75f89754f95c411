"""hvd_compress.torch before there are any workers: what is missing is said in a sentence, and nothing is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import hvd_compress

# Importing torch and Horovod on two busy cores.
SECONDS = 90


def _run(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own, with Horovod kept away from MPI, which may abort outside a launcher."""
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("HOROVOD_")},
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(hvd_compress.__file__).parents[1]),
    }
    command = [sys.executable, "-W", "error", "-c", program]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)


def _last_line(program: str) -> str:
    done = _run(program)
    assert done.returncode != 0, done.stdout
    return done.stderr.strip().splitlines()[-1]


OPTIMIZER = """
import torch
import hvd_compress.torch as hvd
weight = torch.nn.Parameter(torch.zeros(3))
optimizer = torch.optim.SGD([weight], lr=1.0)
"""


def test_importing_the_package_imports_no_framework() -> None:
    program = "import sys, hvd_compress; print(sorted({'torch', 'horovod', 'tensorflow', 'mpi4py'} & set(sys.modules)))"
    done = _run(program)
    assert done.stdout.strip() == "[]", done.stderr


def test_importing_hvd_compress_torch_leaves_tensorflow_and_mpi4py_alone() -> None:
    program = "import sys, hvd_compress.torch; print(sorted({'tensorflow', 'mpi4py'} & set(sys.modules)))"
    done = _run(program)
    assert done.stdout.strip() == "[]", done.stderr


def test_missing_horovod_names_the_check() -> None:
    message = _last_line("import sys; sys.modules['horovod.torch'] = None\nimport hvd_compress.torch")
    assert message.startswith("ImportError: ")
    assert "python -m hvd_compress check" in message


def test_missing_init_is_named() -> None:
    message = _last_line(OPTIMIZER + "hvd.DistributedOptimizer(optimizer, [('weight', weight)])")
    assert message.startswith("hvd_compress.errors.UsageError: ")
    assert "hvd.init()" in message


def test_after_shutdown_init_is_missing_again() -> None:
    message = _last_line(
        OPTIMIZER + "hvd.init()\nhvd.shutdown()\nhvd.DistributedOptimizer(optimizer, [('weight', weight)])"
    )
    assert "hvd.init()" in message


def test_an_unknown_compressor_name_gives_the_nearest() -> None:
    message = _last_line(
        OPTIMIZER + "hvd.init()\nhvd.DistributedOptimizer(optimizer, [('weight', weight)], compression='powersdg')"
    )
    assert message.startswith("hvd_compress.errors.UnknownCompressorError: ")
    assert "'powersdg'" in message
    assert "'powersgd'" in message


def test_a_plain_process_trains_like_a_world_of_one() -> None:
    """No launcher, no worker: enough to try a compressor on one machine."""
    done = _run(
        OPTIMIZER
        + """
hvd.init()
optimizer = hvd.DistributedOptimizer(optimizer, [('weight', weight)], compression='powersgd')
(weight * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
optimizer.step()
print(hvd.size(), weight.tolist(), optimizer.exchange.meter.steps)
"""
    )
    assert done.stdout.strip() == "1 [-1.0, -2.0, -3.0] 1", done.stderr
