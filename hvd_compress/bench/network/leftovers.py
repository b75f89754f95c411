"""Leftovers: networks of commands that were killed before they could take them away.

They would not only stay: their addresses would draw the packets of the next run to where nobody is.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

# Names of links have at most 15 characters.
_OWNERS = 100_000
ETC = Path("/etc/netns")


def owned_by(process: int) -> str:
    """Return what the names of everything that a process makes begin with."""
    return f"hvdc{process % _OWNERS}"


def remove_leftovers() -> None:
    """Remove bridges, links and namespaces whose process is not there any more; needs root."""
    alive = {int(entry.name) % _OWNERS for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    # Links first: namespaces go some time after they are asked to, and what is in them goes with them.
    for name in _abandoned(_told("ip", "-brief", "link"), r"br|w\d+h", alive):
        _told("ip", "link", "del", name)
    for name in _abandoned(_told("ip", "netns", "list"), r"w\d+", alive):
        _told("ip", "netns", "del", name)
        shutil.rmtree(ETC / name, ignore_errors=True)


def free_subnet(process: int) -> str:
    """Return the first three numbers of addresses, 10.213.n, that no link of this machine has."""
    used = {int(n) for n in re.findall(r"\b10\.213\.(\d+)\.", _told("ip", "-brief", "-4", "addr"))}
    free = (n for n in ((process + i) % 256 for i in range(256)) if n not in used)
    return f"10.213.{next(free)}"


def _abandoned(listed: str, kinds: str, alive: set[int]) -> Iterator[str]:
    for line in listed.splitlines():
        found = re.match(rf"(hvdc(\d+)(?:{kinds}))(?:[@\s]|$)", line)
        if found and int(found[2]) not in alive:
            yield found[1]


def _told(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout
