"""Without a launcher: one worker, started as any Python script."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from hvd_compress.horovod.launch import environment
from hvd_compress.horovod.open_mpi import is_mapped

LIMIT_S = 60
SCRIPT = """
import torch
import hvd_compress.torch as hvd
from hvd_compress import PowerSGD
hvd.init()
model = torch.nn.Linear(30, 20)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
optimizer = hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters(), compression=PowerSGD)
model(torch.ones(4, 30)).square().mean().backward()
optimizer.step()
print("size", hvd.size(), "sent", optimizer.exchange.meter.sent_bytes)
"""


def test_a_script_runs_alone() -> None:
    plain = {name: value for name, value in environment().items() if name not in ("OPAL_PREFIX", "HOROVOD_CONTROLLER")}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=plain, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    assert "size 1 sent 0" in done.stdout


def test_only_a_libmpi_of_this_environment_counts(tmp_path: Path) -> None:
    assert not is_mapped(tmp_path)
    assert not is_mapped(tmp_path / "missing")


def test_what_the_user_has_set_stays(tmp_path: Path) -> None:
    script = "import os, hvd_compress.torch; print(os.environ['OPAL_PREFIX'])"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "OPAL_PREFIX": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.stdout.strip() == str(tmp_path), done.stderr
