"""What must be true before anything is downloaded or compiled."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from problem import FREE_SPACE, Problem

# The oldest that compiles torch's C++20 headers.
_OLDEST_GXX = 11


def check_platform() -> None:
    if not sys.platform.startswith("linux"):
        raise Problem(f"set-up works on Linux and this is {sys.platform}: use a Linux machine, container or WSL.")


def check_python() -> None:
    # Debian ships `venv` without the `ensurepip` that it needs, and Python without its headers.
    missing = []
    if not all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")):
        missing.append("venv")
    if not any((Path(folder) / "Python.h").exists() for folder in _header_folders()):
        missing.append("dev")
    if missing:
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        what = {"venv": "the venv module", "dev": "the header Python.h"}
        packages = " ".join(f"{version}-{part}" for part in missing)
        raise Problem(
            f"{sys.executable} lacks {' and '.join(what[part] for part in missing)}: "
            f"install what is missing (Debian, Ubuntu: `sudo apt install {packages}`) and run it again."
        )


def _header_folders() -> list[str]:
    return [sysconfig.get_path("include"), *os.environ.get("CPATH", "").split(os.pathsep)]


def check_paths(folders: Iterable[Path]) -> None:
    for folder in folders:
        if any(character.isspace() for character in str(folder)):
            raise Problem(
                f"the path {str(folder)!r} has a space in it, which Open MPI's compiler cannot cope with: "
                "move the checkout, or point XDG_CACHE_HOME elsewhere, to a path without one."
            )


def check_disk(folders: Iterable[Path], needed: float) -> None:
    for folder in folders:
        free = shutil.disk_usage(_existing(folder)).free / 1e9
        if free < needed:
            raise Problem(f"{folder} has only {free:.1f} GB free and this needs about {needed} GB: {FREE_SPACE}")


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.parent)


def check_build_tools() -> None:
    compiler = os.environ.get("CXX", "g++")
    missing = [tool for tool in (compiler, "make") if shutil.which(tool) is None]
    if missing:
        raise Problem(
            f"{' and '.join(missing)} not found, which Horovod's build needs: install "
            f"(Debian, Ubuntu: `sudo apt install {' '.join(missing)}`) and run it again."
        )
    # A compiler can be there without its headers, or be too old.
    source = b"#include <concepts>\n#include <string>\nint main() { return std::string().size(); }\n"
    command = [compiler, "-std=c++20", "-x", "c++", "-fsyntax-only", "-"]
    if subprocess.run(command, input=source, capture_output=True).returncode != 0:
        raise Problem(
            f"{compiler} cannot compile C++20: install g++ {_OLDEST_GXX} or newer "
            "(Debian, Ubuntu: `sudo apt install g++`), or name another compiler in CXX, and run it again."
        )
