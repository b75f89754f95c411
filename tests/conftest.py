"""The axes of the generic laws: a test that takes `row`, `library` or `world_size` runs for all of them."""

from __future__ import annotations

import os
import zlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before the first import of TensorFlow, which writes banners

import pytest
import tensorflow as tf
import torch
from cases import CUDA, HOST, NUMPY, ROWS, TENSORFLOW, TORCH, WORLD_SIZES, Library, Row
from hypothesis import settings
from rotation import TENSORFLOW_SHARE, chosen, in_turn

from hvd_compress.ops import in_numpy

settings.register_profile("quick", deadline=None, max_examples=20, derandomize=True, database=None)
settings.load_profile("quick")
torch.set_num_threads(1)
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)

# Elements from which TensorFlow's graphs leave work to NumPy: beyond all that tests are of, or none.
WORTH = {"in TensorFlow": 2**40, "in NumPy": 0}

NO_DEVICE = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is present")


@pytest.fixture(params=list(WORTH))
def where_work_is_done(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What does the work that an operator of TensorFlow's may leave to NumPy."""
    monkeypatch.setattr(in_numpy, "WORTH", WORTH[request.param])
    return str(request.param)


@pytest.fixture(autouse=True)
def eager_work_in_turn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every second law of a row in TensorFlow be one of what NumPy does for it."""
    parts = getattr(getattr(request.node, "callspec", None), "params", {})
    if parts.get("library") is TENSORFLOW and zlib.crc32(request.node.nodeid.encode()) % 2:
        monkeypatch.setattr(in_numpy, "WORTH", WORTH["in NumPy"])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    names = set(metafunc.fixturenames) - _parametrized(metafunc)
    rows = _held_to(metafunc)
    if {"row", "library", "world_size"} <= names:
        metafunc.parametrize(("row", "library", "world_size"), [*_worlds(metafunc, rows), *_on_cuda(rows, 2)])
        return
    if {"row", "library"} <= names:
        often = [_pair(row, library) for library in (NUMPY, TORCH) for row in _on(library, rows)]
        pairs = [*often, *(_pair(row, TENSORFLOW) for row in _in_tensorflow(metafunc, rows))]
        metafunc.parametrize(("row", "library"), [*pairs, *_on_cuda(rows)])
    elif "row" in names:
        metafunc.parametrize("row", [pytest.param(row, id=row.id) for row in rows])
    elif "library" in names:
        hosts = [lib for lib in HOST if lib is not TENSORFLOW or not _mutable(metafunc)]
        cuda = pytest.param(CUDA, id="cuda", marks=[pytest.mark.cuda, NO_DEVICE])
        metafunc.parametrize("library", [*(pytest.param(lib, id=lib.name) for lib in hosts), cuda])
    if "world_size" in names:
        metafunc.parametrize("world_size", WORLD_SIZES, ids=lambda n: f"W{n}")


def _mutable(metafunc: pytest.Metafunc) -> bool:
    """Return whether the test is of what happens to memory, where TensorFlow's tensors never change."""
    return metafunc.definition.get_closest_marker("mutable") is not None


def _parametrized(metafunc: pytest.Metafunc) -> set[str]:
    """Return the arguments that the test gives values of its own."""
    given = (mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    return {name.strip() for names in given for name in (names.split(",") if isinstance(names, str) else names)}


def _held_to(metafunc: pytest.Metafunc) -> list[Row]:
    """Return the rows with all properties that the test's `rows` marks name; all rows where there is none."""
    wanted = [name for mark in metafunc.definition.iter_markers("rows") for name in mark.args]
    return [row for row in ROWS if all(getattr(row, name) for name in wanted)]


def _on(library: Library, rows: list[Row]) -> list[Row]:
    """Return the rows that are written for an array library."""
    return [row for row in rows if library.name in row.libraries]


def _pair(row: Row, library: Library, *more: int) -> object:
    return pytest.param(row, library, *more, id="-".join([row.id, library.name, *(f"W{world}" for world in more)]))


def _in_tensorflow(metafunc: pytest.Metafunc, rows: list[Row]) -> list[Row]:
    """Return the rows that the test is tried for in TensorFlow."""
    shown, law = _on(TENSORFLOW, rows), metafunc.definition
    if _mutable(metafunc):
        return []
    return shown if law.get_closest_marker("complete") else in_turn(shown, law.name, TENSORFLOW_SHARE)


def _worlds(metafunc: pytest.Metafunc, rows: list[Row]) -> list[object]:
    """Return every row on each of its libraries with every number of workers; in TensorFlow with one of them each."""
    often = [_pair(row, lib, n) for lib in (NUMPY, TORCH) for row in _on(lib, rows) for n in WORLD_SIZES]
    rare = enumerate(_in_tensorflow(metafunc, rows))
    law = metafunc.definition.name
    return [*often, *(_pair(row, TENSORFLOW, n) for i, row in rare for n in chosen(WORLD_SIZES, law, i))]


def _on_cuda(rows: list[Row], *more: int) -> list[object]:
    """Return the rows on a CUDA device; where there is none, one that says so."""
    shown = [row for row in rows if "torch" in row.libraries] if torch.cuda.is_available() else rows[:1]
    marks = [pytest.mark.cuda, NO_DEVICE]
    return [pytest.param(row, CUDA, *more, id=f"{row.id}-cuda", marks=marks) for row in shown]
