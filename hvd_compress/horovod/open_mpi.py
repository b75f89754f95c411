"""Open MPI as a Python package: it must be told where its files lie."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_MAPPED_FILES = Path("/proc/self/maps")


def tell_where_it_lies() -> None:
    """Set OPAL_PREFIX if the libmpi in this process lies in this Python's environment.

    That build looks for its files where it was compiled; its mpirun sets OPAL_PREFIX, but a process started without a
    launcher, as to try a compressor with one worker, would abort in MPI_Init.
    """
    if "OPAL_PREFIX" not in os.environ and is_mapped(Path(sys.prefix) / "lib"):
        os.environ["OPAL_PREFIX"] = sys.prefix


def is_mapped(folder: Path) -> bool:
    """Return whether this process has loaded a libmpi from `folder`; False where the system does not tell."""
    try:
        mapped = _MAPPED_FILES.read_text()
    except OSError:
        return False
    files = {Path(line.split(maxsplit=5)[5]) for line in mapped.splitlines() if "/libmpi.so" in line}
    return any(file.parent.samefile(folder) for file in files if file.exists() and folder.exists())
