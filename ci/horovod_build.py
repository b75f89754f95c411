"""Builds Horovod's wheel with torch, TensorFlow, MPI and Gloo, once per combination of versions.

Horovod's last release predates today's torch and TensorFlow, so a copy of its source is edited first. It is
downloaded by the user's pip and nothing of it is kept here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import platform
import shutil
import tarfile
import zipfile
from pathlib import Path

import nccl
from environment import Installed, installed
from lock import Lock
from paths import CACHE, PYTHON, VENV
from problem import Problem
from steps import run, say, step

VERSION = "0.28.1"
_SDIST = f"horovod-{VERSION}.tar.gz"
_SDIST_SHA256 = "92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0"
_GIB_PER_JOB = 2
_WORK = "horovod-build"
_CHECKSUM = "sha256"


@dataclasses.dataclass(frozen=True)
class Edit:
    """Replaces a text that must stand in the file exactly once."""

    file: str
    old: str
    new: str


EDITS = (
    # torch's headers are C++20. The extensions find libraries relative to themselves, so that a cached wheel
    # works in any environment and not only in the one that it was built in.
    Edit(
        "CMakeLists.txt",
        "set(CMAKE_CXX_STANDARD 14)\n",
        "set(CMAKE_CXX_STANDARD 20)\n"
        "set(CMAKE_BUILD_WITH_INSTALL_RPATH ON)\n"
        'set(CMAKE_INSTALL_RPATH "$ENV{HVD_COMPRESS_RPATH}")\n',
    ),
    Edit("horovod/torch/CMakeLists.txt", "set(CMAKE_CXX_STANDARD 14)\n", "set(CMAKE_CXX_STANDARD 20)\n"),
    # TensorFlow no longer ships the XLA headers that this file includes.
    Edit(
        "horovod/tensorflow/CMakeLists.txt",
        'list(APPEND TF_SOURCES "${PROJECT_SOURCE_DIR}/horovod/tensorflow/xla_mpi_ops.cc")\n',
        "",
    ),
)

# tensorflow-cpu has no GPU kernels to link with, so its extension is built as on a machine without CUDA.
GPU_EDITS = (
    Edit(
        "horovod/tensorflow/CMakeLists.txt",
        'set(TF_TARGET_LIB "tensorflow")\n',
        'set(TF_TARGET_LIB "tensorflow")\n'
        "get_directory_property(CPU_DEFINITIONS COMPILE_DEFINITIONS)\n"
        'list(FILTER CPU_DEFINITIONS EXCLUDE REGEX "^(HAVE_CUDA|HAVE_GPU|HAVE_NCCL|HOROVOD_GPU_)")\n'
        'set_directory_properties(PROPERTIES COMPILE_DEFINITIONS "${CPU_DEFINITIONS}")\n'
        'list(FILTER SOURCES EXCLUDE REGEX "(cuda|gpu|nccl)_operations.cc$")\n'
        "set(HAVE_CUDA FALSE)\n",
    ),
)


def ensure_wheel() -> tuple[Path, str]:
    """The wheel for what `.venv` holds, from the cache or built now; with it its checksum."""
    versions = installed()
    gpu, reason = nccl.find(versions.torch_cuda, Path(versions.site_packages))
    say(f"Horovod with NCCL operations: {reason}" if gpu else f"Horovod without NCCL operations: {reason}")
    home = CACHE / "horovod" / _key(versions, gpu)
    with Lock(CACHE / "horovod.lock", "another Horovod build"):
        shutil.rmtree(CACHE / _WORK, ignore_errors=True)  # what a killed build left behind
        wheel = _cached(home)
        if wheel is None:
            wheel = _build(home, versions, gpu)
        else:
            say(f"Horovod {VERSION} for these versions is in the cache")
    return wheel, (home / _CHECKSUM).read_text()


def _key(versions: Installed, gpu: nccl.Nccl | None) -> str:
    """Everything that a wheel depends on, for people to read in a folder's name."""
    edits = hashlib.sha256(repr(_edits(gpu)).encode()).hexdigest()[:8]
    operations = f"nccl{gpu.version}-cuda{gpu.cuda_version}-sm{gpu.architectures or 'all'}" if gpu else "cpu"
    return "-".join(
        (
            VERSION,
            versions.python,
            f"torch{versions.torch}",
            f"tf{versions.tensorflow}",
            f"openmpi{versions.openmpi}",
            operations,
            platform.machine(),
            edits,
        )
    )


def _edits(gpu: nccl.Nccl | None) -> tuple[Edit, ...]:
    return EDITS + GPU_EDITS if gpu else EDITS


def _cached(home: Path) -> Path | None:
    wheels = list(home.glob("*.whl"))
    if not wheels:
        return None
    checksum = home / _CHECKSUM
    if len(wheels) == 1 and checksum.exists() and checksum.read_text() == _sha256(wheels[0]):
        return wheels[0]
    say("the cached Horovod wheel is damaged and will be built again")
    return None


def _build(home: Path, versions: Installed, gpu: nccl.Nccl | None) -> Path:
    work = CACHE / _WORK
    work.mkdir(parents=True)
    try:
        with step("downloading Horovod's source (10 seconds)"):
            source = _unpack(_download(work), work)
            for edit in _edits(gpu):
                apply(edit, source)
        jobs = _jobs()
        with step(f"building Horovod {VERSION} on {jobs} cores (about {max(2, 10 // jobs)} minutes, cached)"):
            result = work / "result"
            options = ["--verbose", "--no-build-isolation", "--no-deps", "--wheel-dir", str(result)]
            command: list[str | Path] = [PYTHON, "-m", "pip", "wheel", *options, source]
            run("horovod-build", command, cwd=work, environ=_environ(jobs, gpu, work))
            wheel = _checked(result)
        return _keep(wheel, home)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _download(work: Path) -> Path:
    command: list[str | Path] = [
        PYTHON,
        "-m",
        "pip",
        "download",
        "--no-binary",
        "horovod",
        "--no-build-isolation",
        "--no-deps",
    ]
    run("horovod-download", [*command, "--dest", work, f"horovod=={VERSION}"])
    archive = work / _SDIST
    if not archive.exists() or _sha256(archive) != _SDIST_SHA256:
        raise Problem(
            f"the source of Horovod {VERSION} that pip downloaded is not the published one: run "
            f"`{PYTHON.relative_to(VENV.parent)} -m pip cache purge`, check PIP_INDEX_URL and run it again."
        )
    return archive


def _unpack(archive: Path, work: Path) -> Path:
    with tarfile.open(archive) as tar:
        # The checksum vouches for it; early 3.10 and 3.11 releases know no filters.
        if hasattr(tarfile, "data_filter"):
            tar.extractall(work, filter="data")
        else:
            tar.extractall(work)
    return work / _SDIST.removesuffix(".tar.gz")


def apply(edit: Edit, source: Path) -> None:
    path = source / edit.file
    text = path.read_text() if path.exists() else ""
    if text.count(edit.old) != 1:
        raise Problem(
            f"{edit.file} in Horovod's source does not hold {edit.old.strip()!r} exactly once: "
            f"ci/horovod_build.py knows Horovod {VERSION} only, so restore that version there."
        )
    path.write_text(text.replace(edit.old, edit.new))


def _environ(jobs: int, gpu: nccl.Nccl | None, work: Path) -> dict[str, str]:
    """Ours alone: a stray HOROVOD_ or PYTHONPATH of the user's must not change what gets built."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("HOROVOD_", "PYTHON"))}
    ours |= {
        "PATH": f"{VENV / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "MPI_HOME": str(VENV),
        "MAKEFLAGS": f"-j{jobs}",
        "CMAKE_BUILD_PARALLEL_LEVEL": str(jobs),
        # Horovod's bundled projects ask for policies that CMake is about to drop.
        "CMAKE_POLICY_VERSION_MINIMUM": "3.5",
        "HOROVOD_WITH_PYTORCH": "1",
        "HOROVOD_WITH_TENSORFLOW": "1",
        "HOROVOD_WITHOUT_MXNET": "1",
        "HOROVOD_WITH_MPI": "1",
        "HOROVOD_WITH_GLOO": "1",
        "HVD_COMPRESS_RPATH": ";".join(_library_folders(gpu)),
    }
    return ours | (_gpu_environ(gpu, work) if gpu else {})


def _library_folders(gpu: nccl.Nccl | None) -> list[str]:
    site_packages = "$ORIGIN/../.."
    folders = [f"{site_packages}/../..", f"{site_packages}/torch/lib", f"{site_packages}/tensorflow"]
    if gpu:
        inside = VENV in gpu.library.parents
        folders.append(f"{site_packages}/nvidia/nccl/lib" if inside else str(gpu.library.parent))
    return folders


def _gpu_environ(gpu: nccl.Nccl, work: Path) -> dict[str, str]:
    # NVIDIA's Python package has no plain libnccl.so, the name that CMake looks for.
    library = work / "nccl"
    library.mkdir()
    (library / "libnccl.so").symlink_to(gpu.library)
    environ = {
        "HOROVOD_GPU_OPERATIONS": "NCCL",
        "HOROVOD_CUDA_HOME": str(gpu.cuda),
        "HOROVOD_NCCL_INCLUDE": str(gpu.include),
        "HOROVOD_NCCL_LIB": str(library),
        "HOROVOD_NCCL_LINK": "SHARED",
        "CUDA_HOME": str(gpu.cuda),
        "CUDAToolkit_ROOT": str(gpu.cuda),
    }
    if gpu.architectures:
        environ["HOROVOD_BUILD_CUDA_CC_LIST"] = gpu.architectures
    return environ


def _jobs() -> int:
    """All cores, but no more compilers than fit into the memory; `JOBS` overrides."""
    wanted = os.environ.get("JOBS", "")
    if wanted:
        if not wanted.isdecimal() or int(wanted) < 1:
            raise Problem(f"JOBS={wanted} is not a number of compilers: use a whole number from 1 up.")
        return int(wanted)
    cores = len(os.sched_getaffinity(0))
    return max(1, min(cores, _memory() // (_GIB_PER_JOB << 30)))


def _memory() -> int:
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) << 10
    # Inside a container the machine's memory is not all ours.
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.exists() else "max"
    return min(free, int(text)) if text.isdecimal() else free


def _checked(folder: Path) -> Path:
    wheels = list(folder.glob("horovod-*.whl"))
    names = zipfile.ZipFile(wheels[0]).namelist() if wheels else []
    for start in ("horovod/torch/mpi_lib_v2.", "horovod/tensorflow/mpi_lib."):
        if not any(name.startswith(start) for name in names):
            raise Problem(f"Horovod's build left out {start}so: see the log in {CACHE / 'log'} for why.")
    return wheels[0]


def _keep(wheel: Path, home: Path) -> Path:
    """Into the cache, in one step: a folder that is there is complete."""
    partial = wheel.parent
    (partial / _CHECKSUM).write_text(_sha256(wheel))
    shutil.rmtree(home, ignore_errors=True)
    home.parent.mkdir(parents=True, exist_ok=True)
    partial.rename(home)
    return home / wheel.name


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
