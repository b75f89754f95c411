"""Finds what a Horovod with NCCL operations is built with: a CUDA toolkit and NCCL."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Nccl:
    """What the build is given."""

    cuda: Path
    cuda_version: str
    include: Path
    library: Path
    version: str
    architectures: str
    """Compute capabilities such as "80,90"; empty for all that the toolkit knows."""


def find(torch_cuda: str | None, site_packages: Path) -> tuple[Nccl | None, str]:
    """NCCL to build with, or None; with it the reason in words."""
    if torch_cuda is None:
        return None, "this torch is a CPU build"
    cuda = toolkit()
    if cuda is None:
        return None, "no CUDA toolkit (nvcc and its headers) found"
    cuda_version = _toolkit_version(cuda)
    if cuda_version.split(".")[0] != torch_cuda.split(".")[0]:
        return None, f"the CUDA toolkit is {cuda_version} and torch was built with {torch_cuda}"
    include = system_headers() or _headers([site_packages / "nvidia" / "nccl"])
    if include is None:
        return None, "nccl.h not found"
    library = _library(include)
    if library is None:
        return None, f"{include} has nccl.h but no NCCL library is near it"
    version = _header_version(include / "nccl.h")
    found = Nccl(cuda, cuda_version, include, library, version, _architectures())
    return found, f"NCCL {version}, CUDA {cuda_version}"


def toolkit() -> Path | None:
    """The folder of a CUDA toolkit: an `nvcc` alone may be a wrapper that lives elsewhere."""
    named = [os.environ.get(name) for name in ("HOROVOD_CUDA_HOME", "CUDA_HOME")]
    on_path = shutil.which("nvcc")
    found = str(Path(on_path).resolve().parent.parent) if on_path else None
    for folder in (*named, found, "/usr/local/cuda"):
        needed = ("bin/nvcc", "include/cuda_runtime.h")
        if folder and all((Path(folder) / file).exists() for file in needed):
            return Path(folder)
    return None


def system_headers() -> Path | None:
    """The folder of a `nccl.h` that is not from a Python package."""
    homes = [
        os.environ.get("HOROVOD_NCCL_HOME"),
        os.environ.get("NCCL_HOME"),
        toolkit(),
        "/usr/local",
        "/usr",
    ]
    return _headers([Path(home) for home in homes if home])


def _headers(homes: list[Path]) -> Path | None:
    return next((home / "include" for home in homes if (home / "include" / "nccl.h").exists()), None)


def _library(include: Path) -> Path | None:
    home = include.parent
    folders = [home / "lib", home / "lib64", *sorted((home / "lib").glob("*-linux-gnu"))]
    for name in ("libnccl.so", "libnccl.so.2"):
        for folder in folders:
            if (folder / name).exists():
                return folder / name
    return None


def _architectures() -> str:
    """Those of the GPUs here: the kernels of all architectures compile for many minutes."""
    named = os.environ.get("HOROVOD_BUILD_CUDA_CC_LIST")
    if named:
        return named
    if shutil.which("nvidia-smi") is None:
        return ""
    query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    text = subprocess.run(query, capture_output=True, text=True).stdout
    return ",".join(sorted({found.replace(".", "") for found in re.findall(r"^\d+\.\d+$", text, re.MULTILINE)}))


def _toolkit_version(cuda: Path) -> str:
    text = subprocess.run([cuda / "bin" / "nvcc", "--version"], capture_output=True, text=True).stdout
    found = re.search(r"release (\d+\.\d+)", text)
    return found.group(1) if found else "of an unknown version"


def _header_version(header: Path) -> str:
    text = header.read_text(errors="replace")
    parts = (re.search(rf"#define\s+NCCL_{name}\s+(\d+)", text) for name in ("MAJOR", "MINOR", "PATCH"))
    return ".".join(part.group(1) if part else "?" for part in parts)
