"""What was found on this machine, before anybody judges it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

from ...horovod.build import Horovod


@final
@dataclass(frozen=True)
class Library:
    """A Python package.

    Args:
        version: None where it is not installed.
        error: why it cannot be imported, or "".
        accelerator: what it was built for, as in "CUDA 12.8"; "" for the CPU.
        devices: accelerators that it sees.
        mpi: what the MPI library that it is linked to says of itself, or "".
    """

    version: str | None = None
    error: str = ""
    accelerator: str = ""
    devices: tuple[str, ...] = ()
    mpi: str = ""

    @property
    def works(self) -> bool:
        """Whether it can be imported."""
        return self.version is not None and not self.error


@final
@dataclass(frozen=True)
class Launcher:
    """A program that starts workers.

    Args:
        path: None where there is none.
        on_path: whether PATH leads to it, and not only the folder that this Python is in.
        says: the first lines of its `--version`.
        error: why `--version` failed, or "".
    """

    path: str | None = None
    on_path: bool = True
    says: str = ""
    error: str = ""


@final
@dataclass(frozen=True)
class Start:
    """Whether a process starts MPI or Horovod without a launcher.

    Args:
        error: how it failed, or "".
        cures: environment variables with which it was then seen to start.
    """

    error: str = ""
    cures: tuple[str, ...] = ()


@final
@dataclass(frozen=True)
class Run:
    """An allreduce of two processes.

    Args:
        command: to type it again.
        seconds: that it took.
        error: how it failed, or "".
    """

    command: str
    seconds: float = 0.0
    error: str = ""


@final
@dataclass(frozen=True)
class Facts:
    """Everything that rows are derived from.

    Args:
        python: as in `sys.version_info`.
        numpy, torch, tensorflow, keras, mpi4py: the packages.
        horovod: what it was built with and whether that loads.
        launchers: by name; those that were looked for.
        starts: without a launcher, by package: "horovod", "mpi4py"; absent where it was not tried.
        runs: two processes, by launcher; absent where it was not tried.
        root_refused: this user is root, and the environment does not allow Open MPI to run as root.
    """

    python: tuple[int, int, int]
    numpy: Library = Library()
    torch: Library = Library()
    tensorflow: Library = Library()
    keras: Library = Library()
    mpi4py: Library = Library()
    horovod: Horovod = field(default_factory=Horovod)
    launchers: Mapping[str, Launcher] = field(default_factory=dict)
    starts: Mapping[str, Start] = field(default_factory=dict)
    runs: Mapping[str, Run] = field(default_factory=dict)
    root_refused: bool = False

    def launcher(self, name: str) -> Launcher:
        """Return the launcher of that name, found or not."""
        return self.launchers.get(name, Launcher())
