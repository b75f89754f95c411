"""Network: one namespace a worker, joined by a bridge, with links of a chosen rate; as root, on Linux."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import final

from ...errors import ConfigurationError
from .leftovers import ETC, free_subnet, owned_by, remove_leftovers

# What a link may hold back, and for how long, before it drops.
_BURST, _LATENCY = "256kb", "100ms"


def check_possible() -> None:
    """Raise where no namespaces can be made.

    Raises:
        ConfigurationError: this is no Linux with `ip` and `tc`, or the user is not root.
    """
    missing = [tool for tool in ("ip", "tc") if shutil.which(tool) is None]
    if missing:
        raise ConfigurationError(
            f"{' and '.join(missing)} not found: shaped links need Linux and iproute2 (Debian, Ubuntu: `apt install "
            "iproute2`)."
        )
    if os.geteuid() != 0:
        raise ConfigurationError(
            "Network namespaces are made by root only; run this as root, or without a shaped link."
        )


@final
class Network:
    """Namespaces `names[i]` with addresses `addresses[i]`, there within a `with` block and gone after it.

    What a run that was killed left behind is removed before.

    Args:
        workers: number of namespaces, 1 to 200.
        rate: of every link, each way, as `tc` reads it ("1gbit"); None: as fast as the kernel is.

    Raises:
        ConfigurationError: see `check_possible`; or a command of `ip` or `tc` fails.
    """

    def __init__(self, workers: int, rate: str | None) -> None:
        if not 1 <= workers <= 200:
            raise ConfigurationError(f"workers={workers}: give 1 to 200.")
        check_possible()
        remove_leftovers()
        own, subnet = owned_by(os.getpid()), free_subnet(os.getpid())
        self.names = [f"{own}w{i}" for i in range(workers)]
        self.addresses = [f"{subnet}.{i + 1}" for i in range(workers)]
        self.host_address = f"{subnet}.254"
        self._bridge = f"{own}br"
        self._rate = rate
        self._stack = ExitStack()

    def __enter__(self) -> Network:
        try:
            self._make()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def command(self, worker: int, program: list[str]) -> list[str]:
        """Return the command line that runs a program in a worker's namespace."""
        return ["ip", "netns", "exec", self.names[worker], *program]

    def interface(self, worker: int) -> str:
        """Return the name of a worker's link, in its namespace."""
        return f"{self.names[worker]}n"

    def sent_bytes(self) -> list[int]:
        """Return the bytes that every worker has sent so far, by the counters of the links."""
        # What the near end has received, the far end has sent.
        return [self._counter(name, "rx_bytes") for name in self.names]

    def _counter(self, name: str, what: str) -> int:
        return int(Path(f"/sys/class/net/{name}h/statistics/{what}").read_text())

    def _make(self) -> None:
        _run("ip", "link", "add", self._bridge, "type", "bridge")
        self._stack.callback(_try, "ip", "link", "del", self._bridge)
        _run("ip", "addr", "add", f"{self.host_address}/24", "dev", self._bridge)
        _run("ip", "link", "set", self._bridge, "up")
        for worker in range(len(self.names)):
            self._make_worker(worker)

    def _make_worker(self, worker: int) -> None:
        name, near, far = self.names[worker], f"{self.names[worker]}h", self.interface(worker)
        _run("ip", "netns", "add", name)
        self._stack.callback(_try, "ip", "netns", "del", name)
        self._write_hosts(worker)
        _run("ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
        # Deleted by itself: namespaces go some time after they are asked to, and their links with them.
        self._stack.callback(_try, "ip", "link", "del", near)
        _run("ip", "link", "set", near, "master", self._bridge)
        _run("ip", "link", "set", near, "up")
        inside = ("ip", "-n", name)
        _run(*inside, "addr", "add", f"{self.addresses[worker]}/24", "dev", far)
        _run(*inside, "link", "set", far, "up")
        _run(*inside, "link", "set", "lo", "up")
        if self._rate is not None:
            shape = ("root", "tbf", "rate", self._rate, "burst", _BURST, "latency", _LATENCY)
            _run("tc", "qdisc", "add", "dev", near, *shape)
            _run("tc", "-n", name, "qdisc", "add", "dev", far, *shape)

    def _write_hosts(self, worker: int) -> None:
        """Let the machine's own name mean the worker's address: Horovod looks it up."""
        folder = ETC / self.names[worker]
        made_parent = not ETC.exists()
        folder.mkdir(parents=True, exist_ok=True)
        if made_parent:
            self._stack.callback(_remove_if_empty, ETC)
        self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
        hosts = f"127.0.0.1 localhost\n{self.addresses[worker]} {socket.gethostname()}\n"
        (folder / "hosts").write_text(hosts)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise ConfigurationError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")


def _try(*command: str) -> None:
    subprocess.run(command, capture_output=True)


def _remove_if_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()
