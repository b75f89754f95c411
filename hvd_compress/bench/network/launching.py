"""Workers under Horovod in namespaces: Horovod's own rendezvous server, and the variables that its launcher sets."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from ...errors import ConfigurationError
from .namespaces import Network

# Of what a worker printed, in an error's message.
_LAST_LINES = 40
# Seconds between looks at the workers, for one that is ended to write where it was, and for others to fail of one.
_LOOK_AGAIN, _LAST_WORDS, _OTHERS = 0.05, 5.0, 0.5


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
    """Wait for all; as soon as one fails nobody waits for the others, which wait for it."""
    last = time.monotonic() + seconds
    while any(process.poll() is None for process in started) and not _failed(started):
        if time.monotonic() > last:
            late = [rank for rank, process in enumerate(started) if process.poll() is None]
            _ask_where([started[rank] for rank in late])
            told = "\n".join(f"Worker {rank}:\n{_last_lines(folder, rank)}" for rank in late)
            raise ConfigurationError(
                f"Workers did not end within {seconds:.0f} s; measure less, or allow more (--limit).\n{told}"
            )
        time.sleep(_LOOK_AGAIN)
    if _failed(started):
        # Who was first is seen when all are told.
        time.sleep(_OTHERS)
        told = "\n".join(
            f"Worker {rank} ended with exit status {started[rank].returncode}:\n{_last_lines(folder, rank)}"
            for rank in _failed(started)
        )
        raise ConfigurationError(told)


def _failed(started: list[subprocess.Popen[bytes]]) -> list[int]:
    return [rank for rank, process in enumerate(started) if process.poll()]


def _last_lines(folder: Path, rank: int) -> str:
    return "\n".join((folder / f"output.{rank}").read_text(errors="replace").splitlines()[-_LAST_LINES:])


def _ask_where(processes: list[subprocess.Popen[bytes]]) -> None:
    """End workers so that each writes where it is, if its program has Python's fault handler on."""
    for process in processes:
        process.send_signal(signal.SIGABRT)
    last = time.monotonic() + _LAST_WORDS
    while any(process.poll() is None for process in processes) and time.monotonic() < last:
        time.sleep(_LOOK_AGAIN)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait()
