"""Which MPI it is, out of what a library or an mpirun says of itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import final

_PATTERNS = (
    ("Open MPI", r"(?:Open MPI|OpenRTE)\)?\s+v?(\d+(?:\.\d+)+)"),
    ("Intel MPI", r"Intel\(R\) MPI Library.*?(\d{4}(?:\.\d+)*)"),
    ("MPICH", r"(?:MPICH Version:|HYDRA build details:\s+Version:)\s+(\d+(?:\.\d+)+)"),
)


@final
@dataclass(frozen=True)
class MpiVersion:
    """An implementation and its release, as in Open MPI 4.1.8."""

    vendor: str
    version: str

    def __str__(self) -> str:
        return f"{self.vendor} {self.version}"

    @property
    def is_open_mpi_5(self) -> bool:
        """Whether it is Open MPI 5 or newer, whose mpirun is another program than that of Open MPI 4."""
        return self.vendor == "Open MPI" and int(self.version.split(".")[0]) >= 5


def parse(text: str) -> MpiVersion | None:
    """Return which MPI describes itself so, None if that is not known.

    Args:
        text: of `MPI_Get_library_version` or of `mpirun --version`.
    """
    for vendor, pattern in _PATTERNS:
        match = re.search(pattern, text, flags=re.DOTALL)
        if match:
            return MpiVersion(vendor, match.group(1))
    return None


def differ(one: str, other: str) -> bool:
    """Whether two descriptions are of different MPIs; not so if either is not understood.

    Processes of one job must agree with their mpirun in the implementation and its first two numbers.
    """
    first, second = parse(one), parse(other)
    if first is None or second is None:
        return False
    return first.vendor != second.vendor or first.version.split(".")[:2] != second.version.split(".")[:2]
