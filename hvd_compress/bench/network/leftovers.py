"""Leftovers: networks of commands that were killed before they could take them away.

They would not only stay: their addresses would draw the packets of the next run to where nobody is.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from ...errors import ConfigurationError

# Names of links have at most 15 characters.
_OWNERS = 100_000
ETC = Path("/etc/netns")


def owned_by(process: int) -> str:
    """Return what the names of everything that a process makes begin with."""
    return f"hvdc{process % _OWNERS}"


def remove_leftovers() -> None:
    """Remove bridges, links and namespaces whose process is not there any more; needs root.

    Only processes of this container are seen: two that share a network cannot measure at the same time.
    """
    links, namespaces = _told("ip", "-brief", "link"), _told("ip", "netns", "list")
    folders = "\n".join(path.name for path in ETC.glob("hvdc*"))
    # Asked for last: whoever has made one of these is there by now, or gone.
    alive = {int(entry.name) % _OWNERS for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    # Links first: namespaces go some time after they are asked to, and what is in them goes with them.
    for name in _abandoned(links, r"br|w\d+h", alive):
        _told("ip", "link", "del", name)
    for name in _abandoned(namespaces, r"w\d+", alive):
        _told("ip", "netns", "del", name)
    for name in _abandoned(folders, r"w\d+", alive):
        shutil.rmtree(ETC / name, ignore_errors=True)


def free_subnet(process: int) -> str:
    """Return the first three numbers of addresses, 10.213.n, that no link of this machine has.

    Raises:
        ConfigurationError: there are none.
    """
    used = {int(n) for n in re.findall(r"\b10\.213\.(\d+)\.", _told("ip", "-brief", "-4", "addr"))}
    free = (n for n in ((process + i) % 256 for i in range(256)) if n not in used)
    n = next(free, None)
    if n is None:
        raise ConfigurationError("All of 10.213.0.0/16 is taken by links of this machine; remove some of them.")
    return f"10.213.{n}"


def _abandoned(listed: str, kinds: str, alive: set[int]) -> Iterator[str]:
    for line in listed.splitlines():
        found = re.match(rf"(hvdc(\d+)(?:{kinds}))(?:[@\s]|$)", line)
        if found and int(found[2]) not in alive:
            yield found[1]


def _told(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout
