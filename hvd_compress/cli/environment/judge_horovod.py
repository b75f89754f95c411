"""Rows about Horovod: what it was built with, and whether that fits what is installed."""

from __future__ import annotations

from ...horovod import quirks
from ...horovod.build import FRAMEWORKS
from .facts import Facts, Library
from .row import Row, State

_GROUP = "Horovod"
_TRANSPORTS = {
    "mpi": ("MPI", "rebuild Horovod with HOROVOD_WITH_MPI=1 if you start it with mpirun"),
    "gloo": ("Gloo", "rebuild Horovod with HOROVOD_WITH_GLOO=1 if you start it with `horovodrun --gloo`"),
    "nccl": ("NCCL", "on NVIDIA GPUs rebuild Horovod with HOROVOD_GPU_OPERATIONS=NCCL"),
    "ddl": ("DDL", "only IBM's PowerAI has it"),
    "ccl": ("CCL", "rebuild Horovod with HOROVOD_CPU_OPERATIONS=CCL if you have Intel's oneCCL"),
    "cuda": ("CUDA", "on NVIDIA GPUs rebuild Horovod with HOROVOD_GPU_OPERATIONS=NCCL"),
}


def horovod_rows(facts: Facts) -> list[Row]:
    """Judge the installation, its frameworks and its transports."""
    version = facts.horovod.version
    if version is None:
        return [Row(_GROUP, "horovod", "error", "not installed", f"{_sentence(quirks.BUILD)}.")]
    old = quirks.of_version(version)
    first = Row(_GROUP, "horovod", "ok", version)
    if old:
        first = Row(_GROUP, "horovod", "warning", old.problem, f"{_sentence(old.cure)}.")
    result = [first, *(_framework(facts, name) for name in FRAMEWORKS)]
    if facts.horovod.loaded:
        result += [_transport(facts, name) for name in _TRANSPORTS]
    return result


def _framework(facts: Facts, name: str) -> Row:
    title = f"for {name}"
    extension = facts.horovod.extension(name)
    if name == "mxnet":
        found = "built" if extension.built else "not built"
        return Row(_GROUP, title, "missing", found, "Nothing: hvd_compress has no driver for it.")
    installed: Library = {"torch": facts.torch, "tensorflow": facts.tensorflow}[name]
    if not extension.built:
        cure = f"Nothing if you do without {name}; else {quirks.BUILD}."
        return Row(_GROUP, title, "missing", "not built", cure)
    if not installed.works:
        cure = f"Nothing if you do without {name}; else see the row of {name}."
        return Row(_GROUP, title, "missing", f"built, but {name} does not work", cure)
    quirk = quirks.of_build(name, extension.built_against, installed.version or "", extension.error)
    if quirk:
        state: State = "error" if extension.error else "warning"
        return Row(_GROUP, title, state, quirk.problem, f"{_sentence(quirk.cure)}.")
    return Row(_GROUP, title, "ok", f"built against {extension.built_against or 'an unknown version'}, loads")


def _transport(facts: Facts, name: str) -> Row:
    title, cure = _TRANSPORTS[name]
    if name in facts.horovod.transports:
        return Row(_GROUP, f"with {title}", "ok", "built in")
    quirk = quirks.of_gpu_build(facts.torch.accelerator, facts.horovod.transports) if name == "nccl" else None
    if quirk:
        return Row(_GROUP, f"with {title}", "warning", quirk.problem, f"{_sentence(quirk.cure)}.")
    return Row(_GROUP, f"with {title}", "missing", "not built in", f"Nothing if you do without; {cure}.")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
