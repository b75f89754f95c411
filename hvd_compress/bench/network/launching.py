"""Workers under Horovod in namespaces: Horovod's own rendezvous server, and the variables that its launcher sets."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from ...errors import ConfigurationError
from .namespaces import Network


def run_workers(
    network: Network, program: Sequence[str], folder: Path, seconds: float, variables: Mapping[str, str] | None = None
) -> None:
    """Run a program in every namespace, as the ranks of one Horovod job over Gloo; wait for all of them.

    Args:
        network: that is there.
        program: what each worker runs.
        folder: for what they print, in `output.RANK`.
        seconds: after which they are ended.
        variables: of the environment, besides those of a launcher.

    Raises:
        ConfigurationError: one failed, or they took too long; with the end of what it printed.
    """
    from horovod.runner.common.util.hosts import get_host_assignments, parse_hosts
    from horovod.runner.http.http_server import RendezvousServer

    workers = len(network.names)
    assigned = get_host_assignments(parse_hosts(",".join(f"{name}:1" for name in network.names)), workers)
    server = RendezvousServer(verbose=0)
    port = server.start()
    try:
        server.init(assigned)
        with ExitStack() as stack:
            started = []
            for rank in range(workers):
                output = stack.enter_context(open(folder / f"output.{rank}", "w"))
                process = subprocess.Popen(
                    network.command(rank, list(program)),
                    env={**os.environ, **(variables or {}), **_of_a_launcher(network, rank, port)},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                stack.callback(_end, process)
                started.append(process)
            _wait(started, folder, seconds)
    finally:
        server.stop()


def _of_a_launcher(network: Network, rank: int, port: int) -> dict[str, str]:
    """Return the variables that Horovod's launcher would set for a rank, and those that torch.distributed reads."""
    workers = str(len(network.names))
    return {
        "HOROVOD_HOSTNAME": network.names[rank],
        "HOROVOD_RANK": str(rank),
        "HOROVOD_SIZE": workers,
        "HOROVOD_LOCAL_RANK": "0",
        "HOROVOD_LOCAL_SIZE": "1",
        "HOROVOD_CROSS_RANK": str(rank),
        "HOROVOD_CROSS_SIZE": workers,
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": network.host_address,
        "HOROVOD_GLOO_RENDEZVOUS_PORT": str(port),
        "HOROVOD_GLOO_IFACE": network.interface(rank),
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "GLOO_SOCKET_IFNAME": network.interface(rank),
        "MASTER_ADDR": network.addresses[0],
        "MASTER_PORT": "29517",
        "RANK": str(rank),
        "WORLD_SIZE": workers,
        "OMP_NUM_THREADS": "1",
    }


def _wait(started: list[subprocess.Popen[bytes]], folder: Path, seconds: float) -> None:
    for rank, process in enumerate(started):
        try:
            code: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        if code != 0:
            last = "\n".join((folder / f"output.{rank}").read_text(errors="replace").splitlines()[-20:])
            how = f"did not end within {seconds:.0f} s" if code is None else f"ended with exit status {code}"
            raise ConfigurationError(f"Worker {rank} {how}:\n{last}")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait()
