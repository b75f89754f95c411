"""Rows about Python and its packages."""

from __future__ import annotations

from ...horovod import quirks
from .facts import Facts, Library
from .row import Row

_OLDEST, _NEWEST = (3, 10), (3, 13)
_GROUP = "Python"


def python_rows(facts: Facts) -> list[Row]:
    """Judge the interpreter and the packages that are imported."""
    alternative = {"torch": facts.tensorflow, "tensorflow": facts.torch}
    return [
        _python(facts.python),
        _package("numpy", facts.numpy, "pip install numpy", needed=True),
        _package("torch", facts.torch, "pip install torch", needed=not alternative["torch"].works),
        _package("tensorflow", facts.tensorflow, "pip install tensorflow", needed=not alternative["tensorflow"].works),
        _keras(facts),
        _package("mpi4py", facts.mpi4py, "pip install mpi4py", needed=False),
    ]


def _python(version: tuple[int, int, int]) -> Row:
    text = ".".join(str(number) for number in version)
    cure = "Make an environment with Python 3.11, which is what is tested; 3.10 to 3.13 are supported."
    if version[:2] < _OLDEST:
        return Row(_GROUP, "python", "error", f"{text} is too old", cure)
    if version[:2] > _NEWEST:
        return Row(_GROUP, "python", "warning", f"{text} is newer than 3.13 and untested", cure)
    return Row(_GROUP, "python", "ok", text)


def _package(name: str, library: Library, install: str, needed: bool) -> Row:
    """Judge one package.

    Args:
        name: of the package.
        library: what was found.
        install: the command that installs it.
        needed: whether training cannot run without it, as things are.
    """
    if library.version is None:
        use = {
            "mpi4py": "only NumPy gradients over mpi4py need it",
            "torch": "only torch scripts need it",
            "tensorflow": "only TensorFlow scripts need it",
        }
        if needed:
            return Row(_GROUP, name, "error", "not installed", f"Run `{install}`.")
        return Row(
            _GROUP, name, "missing", "not installed", f"Nothing if you do without, {use[name]}; else `{install}`."
        )
    if library.error:
        cure = f"Run `{install} --force-reinstall --no-deps`, or see `python -c 'import {name}'` for the whole error."
        return Row(_GROUP, name, "error", f"{library.version} cannot be imported: {library.error}", cure)
    return Row(_GROUP, name, "ok", ", ".join(_parts(name, library)))


def _parts(name: str, library: Library) -> list[str]:
    parts = [library.version or ""]
    if name in ("torch", "tensorflow"):
        parts.append(f"built for {library.accelerator or 'the CPU'}")
    if library.accelerator:
        parts.append(f"devices: {', '.join(library.devices) or 'none'}")
    return parts


def _keras(facts: Facts) -> Row:
    version = facts.keras.version
    if version is None:
        return Row(_GROUP, "keras", "missing", "not installed", "Nothing if you do without; else `pip install keras`.")
    quirk = quirks.of_keras(version)
    if quirk is None or not facts.horovod.extension("tensorflow").built:
        return Row(_GROUP, "keras", "ok", version)
    return Row(_GROUP, "keras", "warning", f"{version}: {quirk.problem}", f"For Keras with Horovod, {quirk.cure}.")
