"""What went wrong and its cure, in one sentence."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType


class Problem(Exception):
    """Ends the set-up; its text is all that the user gets to see."""

    @classmethod
    def from_os_error(cls, error: OSError) -> Problem:
        where = f" ({error.filename})" if error.filename else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return cls(f"the disk is full{where}: {FREE_SPACE}")
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return cls(f"no permission to write{where}: make it yours with chown, or clone into your home folder.")
        return cls(f"the system refused an operation{where}, {error.strerror}: cure that and run it again.")


FREE_SPACE = "free some space, or point XDG_CACHE_HOME and TMPDIR at a larger disk, and run it again."

# What a noisy tool writes -> what it means. The first match wins.
_KNOWN = (
    (("No space left on device", "Disk quota exceeded"), f"the disk is full: {FREE_SPACE}"),
    (
        ("Killed signal terminated program", "virtual memory exhausted", "cc1plus: out of memory"),
        "the compiler ran out of memory: close other programs, or use fewer jobs, as in `make JOBS=1 setup`.",
    ),
    (
        (
            "Temporary failure in name resolution",
            "Name or service not known",
            "NameResolutionError",
            "NewConnectionError",
            "Max retries exceeded",
            "ConnectTimeout",
            "ReadTimeout",
            "Read timed out",
            "Network is unreachable",
            "Connection refused",
            "Connection reset",
            "ConnectionError",
            "IncompleteRead",
            "ProxyError",
            "SSLError",
            "EOF occurred",
        ),
        "a download broke off: check the network (HTTPS_PROXY, PIP_INDEX_URL where needed) and run it again.",
    ),
    (
        (
            "DO NOT MATCH THE HASHES",
            "has an invalid wheel",
            "BadZipFile",
            "Bad CRC-32",
            "is not a valid wheel",
        ),
        "a downloaded file is damaged: run `python3 -m pip cache purge` and then the same command again.",
    ),
    (
        ("No matching distribution found",),
        "a pinned package (ci/requirements.txt) has no wheel for this Python and machine: use Python 3.11 on "
        "x86-64 Linux, or a package index that has it (PIP_INDEX_URL).",
    ),
)


def known_cause(log: str) -> str | None:
    """The sentence for a failure that is recognised in a tool's output."""
    for signs, sentence in _KNOWN:
        if any(sign in log for sign in signs):
            return sentence
    return None


@contextlib.contextmanager
def report() -> Iterator[None]:
    """Turn every way to fail into one sentence and an exit code, never a traceback."""
    signal.signal(signal.SIGTERM, _raise_interrupt)
    try:
        yield
    except Problem as problem:
        sys.exit(f"set-up: {problem}")
    except OSError as error:
        sys.exit(f"set-up: {Problem.from_os_error(error)}")
    except KeyboardInterrupt:
        print("\nset-up: interrupted; the same command carries on from here.", file=sys.stderr)
        os._exit(130)


def _raise_interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
