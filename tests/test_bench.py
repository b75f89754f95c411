"""`bench`: sizes, what a point says, and the command with one process and with two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hvd_compress import ConfigurationError, describe
from hvd_compress.bench.micro import MicroSettings, measure
from hvd_compress.bench.micro.measure import matrix_shape
from hvd_compress.bench.micro.report import as_json
from hvd_compress.bench.micro.world import NumPyWorld
from hvd_compress.bench.sizes import as_text, parse_size, size_range

LIMIT = 240.0


@pytest.mark.parametrize(
    ("text", "nbytes"), [("512", 512), ("4K", 4096), ("4kb", 4096), ("256M", 2**28), ("1G", 2**30)]
)
def test_sizes_are_read(text: str, nbytes: int) -> None:
    assert parse_size(text) == nbytes
    assert parse_size(as_text(nbytes)) == nbytes


@pytest.mark.parametrize("text", ["", "K", "0", "-4K", "4T", "4.5M"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="Size"):
        parse_size(text)


def test_ranges_go_as_far_as_the_largest() -> None:
    assert size_range(4, 64, 4) == (4, 16, 64)
    assert size_range(4, 63, 4) == (4, 16)
    for wrong in ((4, 64, 1), (64, 4, 2)):
        with pytest.raises(ConfigurationError, match="factor"):
            size_range(*wrong)


@pytest.mark.parametrize("elements", [1, 2, 3, 1000, 2**20])
def test_matrices_have_as_many_elements_or_one_row_less(elements: int) -> None:
    rows, columns = matrix_shape(elements)
    assert elements - rows < rows * columns <= elements and rows <= columns


SETTINGS = MicroSettings(("identity", "powersgd:rank=2", "qsgd"), (2048, 8192), library="numpy", repeats=3, warmup=1)


@pytest.mark.parametrize("name", ["library", "device", "dtype"])
def test_settings_out_of_range_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name}='other'"):
        replace(SETTINGS, **{name: "other"})
    with pytest.raises(ConfigurationError, match="repeats=0"):
        replace(SETTINGS, repeats=0)
    with pytest.raises(ConfigurationError, match="NumPy has the CPU only"):
        replace(SETTINGS, device="cuda")


def test_a_point_for_every_size_and_compressor() -> None:
    """Stages add up, bytes are those of `describe`, and what loses nothing has no error."""
    points = list(measure(SETTINGS, NumPyWorld()))
    assert [(p.nbytes, p.compressor) for p in points] == [(n, c) for n in SETTINGS.sizes for c in SETTINGS.compressors]
    for point in points:
        assert point.encode is not None and point.collective is not None and point.decode is not None
        assert 0 < point.fastest <= point.total <= point.slowest
        # Medians of parts and of wholes are not of the same exchange, but lie among all of them.
        assert max(point.encode, point.collective, point.decode) <= point.slowest
        assert point.copies == pytest.approx(point.total / point.copy)
        described = describe(point.compressor, {"x": matrix_shape(point.nbytes // 4)}, 2, allow_larger=True)
        assert (point.wire_bytes, point.ratio) == (described.wire_bytes, described.ratio)
        assert (point.relative_error < 1e-6) == (point.compressor == "identity")
        assert point.relative_error < 4.0
    saved = json.loads(json.dumps(as_json(points, SETTINGS, 1, 0.0)))
    assert saved["settings"]["sizes"] == [2048, 8192] and len(saved["points"]) == len(points)
    assert saved["points"][0]["copies"] == points[0].copies


def _bench(tmp_path: Path, *arguments: str, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HOROVOD_", "OMPI_", "PMI"))}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    if os.geteuid() == 0:
        environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    if not launcher:
        environment |= {"HOROVOD_CONTROLLER": "gloo", "HOROVOD_CPU_OPERATIONS": "gloo"}
    command = [*launcher, sys.executable, "-m", "hvd_compress", "bench", *arguments]
    return subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT, stdin=subprocess.DEVNULL
    )


COMMANDS = {
    "torch": ((), "torch", 1),
    "torch-2": (("horovodrun", "-np", "2", "--gloo"), "torch", 2),
    "tensorflow-2": (("horovodrun", "-np", "2", "--gloo"), "tensorflow", 2),
    "numpy-2": (("mpirun", "--oversubscribe", "-np", "2"), "numpy", 2),
}


@pytest.mark.multiprocess
@pytest.mark.timeout(LIMIT + 30)
@pytest.mark.parametrize("case", COMMANDS)
def test_the_command(case: str, tmp_path: Path) -> None:
    launcher, library, workers = COMMANDS[case]
    options = ["--compressors", "identity,powersgd:rank=1,efsignsgd", "-b", "1K", "-e", "4K", "-f", "4", "-n", "2"]
    done = _bench(tmp_path, *options, "--library", library, "--json", "found.json", launcher=launcher)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "powersgd:rank=1" in done.stdout and f"{workers} worker(s)" in done.stdout
    saved = json.loads((tmp_path / "found.json").read_text())
    assert saved["workers"] == workers and len(saved["points"]) == 6
    for point in saved["points"]:
        assert (point["encode"] is None) == (library == "tensorflow")
        # Of two workers' gradients, which are not alike, none but the plain average is exact.
        assert (point["relative_error"] < 1e-6) == (point["compressor"] == "identity"), point
        assert np.isfinite(point["copies"]) and point["copies"] > 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--compressors", "nonsense"), "nonsense"),
        (("-b", "4T"), "4T"),
        (("-f", "1"), "factor"),
        (("--library", "numpy", "--device", "cuda"), "NumPy has the CPU only"),
        (("-n", "0"), "repeats=0"),
    ],
)
def test_what_cannot_be_measured_is_refused(options: tuple[str, ...], told: str, tmp_path: Path) -> None:
    done = _bench(tmp_path, *(("--library", "numpy") if "--library" not in options else ()), *options)
    assert done.returncode == 2 and told in done.stderr, done.stderr
