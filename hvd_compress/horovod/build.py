"""What the installed Horovod was built with; reading it imports nothing of Horovod."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

FRAMEWORKS = ("torch", "tensorflow", "mxnet")
TRANSPORTS = ("mpi", "gloo", "nccl", "ddl", "ccl", "cuda")

_EXTENSION_STEM = {"torch": "mpi_lib_v2", "tensorflow": "mpi_lib", "mxnet": "mpi_lib"}
_NAME_IN_METADATA = {"torch": "pytorch", "tensorflow": "tensorflow", "mxnet": "mxnet"}


@final
@dataclass(frozen=True)
class Extension:
    """Horovod's compiled part for one framework.

    Args:
        built: whether it is there.
        built_against: the framework's version at that time, or "" where it was not written down.
        error: why it does not load, or "".
        transports: names out of `TRANSPORTS` that it was built with; empty unless it loads.
        mpi: what the MPI library that it is linked to says of itself, or "".
    """

    built: bool = False
    built_against: str = ""
    error: str = ""
    transports: tuple[str, ...] = ()
    mpi: str = ""

    @property
    def works(self) -> bool:
        """Whether it loads."""
        return self.built and not self.error


@final
@dataclass(frozen=True)
class Horovod:
    """An installation.

    Args:
        version: None where there is none.
        extensions: by framework.
    """

    version: str | None = None
    extensions: Mapping[str, Extension] = field(default_factory=dict)

    def extension(self, framework: str) -> Extension:
        """Return the extension for a framework, built or not."""
        return self.extensions.get(framework, Extension())

    @property
    def loaded(self) -> dict[str, Extension]:
        """The extensions that load."""
        return {name: extension for name, extension in self.extensions.items() if extension.works}

    @property
    def transports(self) -> frozenset[str]:
        """What some extension that loads was built with."""
        return frozenset(name for extension in self.loaded.values() for name in extension.transports)

    @property
    def mpi(self) -> str:
        """What the MPI library of an extension that loads says of itself, or ""."""
        return next((extension.mpi for extension in self.loaded.values() if extension.mpi), "")


def installed() -> Horovod:
    """Return what is on disk; whether an extension loads is not known yet."""
    spec = importlib.util.find_spec("horovod")
    if spec is None or not spec.submodule_search_locations:
        return Horovod()
    folder = Path(next(iter(spec.submodule_search_locations)))
    try:
        version = importlib.metadata.version("horovod")
    except importlib.metadata.PackageNotFoundError:
        return Horovod()
    return Horovod(version, extensions_in(folder))


def extensions_in(folder: Path) -> dict[str, Extension]:
    """Return the extensions in an installed `horovod` folder, by framework."""
    versions = _metadata(folder / "metadata.json")
    return {
        framework: Extension(
            built=any((folder / framework).glob(f"{stem}*.so")),
            built_against=versions.get(_NAME_IN_METADATA[framework], ""),
        )
        for framework, stem in _EXTENSION_STEM.items()
    }


def _metadata(file: Path) -> dict[str, str]:
    # Releases before 0.27 do not write it.
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in content.items()} if isinstance(content, dict) else {}
