"""What Horovod is known to get wrong, and the cures: pure functions of versions, each None where all is well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

TESTED_VERSION = "0.28.1"
OPEN_MPI_5_BINDING = "--bind-to none --map-by slot"
# One of them alone is not enough: Horovod initialises MPI if either its controller or its CPU operations use it.
WITHOUT_MPI = {"HOROVOD_CONTROLLER": "gloo", "HOROVOD_CPU_OPERATIONS": "gloo"}
BUILD = (
    f"build Horovod {TESTED_VERSION} for the torch and TensorFlow that are installed: `make setup` in a checkout of "
    "hvd_compress does it in .venv (the released source does not compile with current ones unless edited)"
)


@final
@dataclass(frozen=True)
class Quirk:
    """What is wrong, and what to do; parts of sentences."""

    problem: str
    cure: str


def of_build(framework: str, built_against: str, installed: str, error: str) -> Quirk | None:
    """Judge an extension by the framework's versions.

    Args:
        framework: "torch" or "tensorflow".
        built_against: the framework's version when the extension was compiled, "" if unknown.
        installed: the framework's version now.
        error: why the extension does not load, or "".
    """
    moved = bool(built_against) and built_against != installed
    if error:
        what = f"built against {framework} {built_against}, installed is {installed}" if moved else error
        return Quirk(f"does not load: {what}", BUILD)
    if moved:
        return Quirk(f"loads, but was built against {framework} {built_against} and {installed} is installed", BUILD)
    return None


def of_keras(keras: str) -> Quirk | None:
    """Judge the version of Keras that stock `DistributedOptimizer` would meet."""
    if int(keras.split(".")[0]) < 3:
        return None
    return Quirk(
        "with Keras 3 the stock `DistributedOptimizer` trains without reducing any gradient and says nothing",
        "use `import hvd_compress.keras as hvd`, whose `DistributedOptimizer` and callbacks work with Keras 3; or "
        "`pip install tf_keras`, TF_USE_LEGACY_KERAS=1 and `import hvd_compress.tensorflow.keras as hvd`",
    )


def of_open_mpi_5() -> Quirk:
    """Say what `horovodrun --mpi` does to the mpirun of Open MPI 5."""
    return Quirk(
        "Open MPI 5 refuses the option -bind-to that `horovodrun --mpi` gives it",
        f'use `horovodrun --mpi --binding-args="{OPEN_MPI_5_BINDING}" ...`, or mpirun itself',
    )


def of_gpu_build(accelerator: str, transports: frozenset[str]) -> Quirk | None:
    """Judge Horovod's transports by what torch was built for.

    Args:
        accelerator: as in "CUDA 12.8", or "" for the CPU.
        transports: that Horovod was built with.
    """
    if not accelerator or "nccl" in transports:
        return None
    return Quirk(
        f"torch is built for {accelerator} and Horovod without NCCL, so gradients on a GPU travel through the CPU",
        "rebuild Horovod with HOROVOD_GPU_OPERATIONS=NCCL where a CUDA toolkit and NCCL are installed; "
        "`make setup` in a checkout of hvd_compress does so when it finds them",
    )


def of_version(version: str) -> Quirk | None:
    """Judge Horovod's own version."""
    numbers = [int(part) for part in version.split(".")[:2] if part.isdigit()]
    if numbers >= [0, 28]:
        return None
    return Quirk(f"{version} is older than the tested {TESTED_VERSION}", BUILD)
