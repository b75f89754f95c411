"""Every example runs, with few steps and a small data set made here."""

from __future__ import annotations

import ast
import gzip
import importlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from hvd_compress import Cast
from hvd_compress.horovod import launch

# Each says what a script for plain Horovod has in the marked lines.
CHANGED = re.compile(r"^(?P<indent> *)(?P<ours>\S.*?)  # \((?P<place>[12])\) (was: (?P<stock>.*)|new)$", re.MULTILINE)
TRAINING = ["fashion_mnist.py", "keras_fashion_mnist.py", "tensorflow_fashion_mnist.py", "tensorflow_text.py"]
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
BIN = Path(sys.executable).parent
RANKS = os.environ.get("HVD_COMPRESS_TEST_RANKS", "2")
MPIRUN = [str(BIN / "mpirun"), "--oversubscribe", "--bind-to", "none", "-np", RANKS]
SECONDS = 150
TRAIN_IMAGES, TEST_IMAGES, STEPS = 256, 60, 6


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set in Fashion-MNIST's format: the label is the brightest band of the image."""
    folder, chance = tmp_path_factory.mktemp("fashion-mnist"), np.random.default_rng(0)
    for part, count in (("train", TRAIN_IMAGES), ("t10k", TEST_IMAGES)):
        labels = chance.integers(10, size=count).astype(np.uint8)
        images = chance.integers(100, size=(count, 28, 28)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label : 2 * label + 3] += 150
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", labels)
    return folder


def run(command: Sequence[str | Path], data: Path, seconds: float = SECONDS) -> tuple[int, str]:
    """Return the exit code and everything printed; whatever is left when the time is up is ended."""
    environment = {**launch.environment(), "HVD_COMPRESS_DATA": str(data), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    process = subprocess.Popen(
        [str(part) for part in command],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        for child in [*psutil.Process(process.pid).children(recursive=True), process]:
            child.kill()
        output, _ = process.communicate()
        pytest.fail(f"did not end within {seconds} s:\n{output}")
    return process.returncode, output


def succeed(command: Sequence[str | Path], data: Path) -> str:
    code, output = run(command, data)
    assert code == 0, output
    return output


def demo(data: Path, folder: Path, *arguments: str) -> list[str | Path]:
    common = ["--np", RANKS, "--steps", str(STEPS), "--batch-size", "8", "--output", str(folder)]
    return [sys.executable, EXAMPLES / "demo.py", *common, "--limit", str(SECONDS), *arguments]


def for_horovod(script: str) -> str:
    """Return an example with the marked lines as a script for plain Horovod has them."""

    def undone(line: re.Match[str]) -> str:
        if line["place"] == "1":
            return f"{line['indent']}{line['stock']}"
        first = line["stock"].split(" or ")[0] if line["stock"] else None
        return f"{line['indent']}compression={first}," if first else ""

    return CHANGED.sub(undone, (EXAMPLES / script).read_text())


def remove_log(output: str) -> None:
    log = Path(output.split("the log is ")[1].split(" and ends so")[0])
    assert log.is_file()
    shutil.rmtree(log.parent)


def test_every_example_has_a_test() -> None:
    tests = Path(__file__).read_text()
    for script in EXAMPLES.glob("*.py"):
        assert script.name in tests


@pytest.mark.parametrize("script", TRAINING)
def test_only_the_import_and_one_argument_differ_from_horovod(script: str) -> None:
    changed = list(CHANGED.finditer((EXAMPLES / script).read_text()))
    assert [line["place"] for line in changed if line["stock"]] == ["1", "2"]
    tree = ast.parse(for_horovod(script))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import) and node.names[0].asname == "hvd"]
    assert [node.names[0].name.split(".")[0] for node in imports] == ["horovod"]
    assert "hvd_compress" not in {name.split(".")[0] for name in imported(tree)}
    stock = importlib.import_module(imports[0].names[0].name)
    for node in ast.walk(tree):
        path = dotted(node)
        if path[:1] == ["hvd"]:
            attribute(stock, path[1:])  # Horovod has it
        if isinstance(node, ast.Call) and dotted(node.func)[:1] == ["hvd"]:
            taken = inspect.signature(attribute(stock, dotted(node.func)[1:])).parameters
            assert {argument.arg for argument in node.keywords} <= set(taken), ast.unparse(node)


def imported(tree: ast.AST) -> set[str]:
    """Return the names of the modules that a script imports."""
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return found | {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}


def dotted(node: ast.AST) -> list[str]:
    """Return a.b.c as its names; nothing for other expressions."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return [*before, node.attr] if before else []
    return []


def attribute(owner: object, path: Sequence[str]) -> Any:
    for name in path:
        owner = getattr(owner, name)
    return owner


def test_simulate(data: Path) -> None:
    output = succeed([sys.executable, EXAMPLES / "simulate.py", "--workers", "3", "--steps", "20"], data)
    for method in ("dense", "fp16", "bf16", "powersgd:rank=1", "powersgd:rank=4"):
        assert method in output


def test_traffic(data: Path, tmp_path: Path) -> None:
    script = [sys.executable, EXAMPLES / "traffic.py", "--output", tmp_path]
    output = succeed([*script, "--method", "dense,powersgd", "--workers", "2,8"], data)
    measured = {r["method"]: r["bytes"] for r in json.loads((tmp_path / "traffic.json").read_text())["results"]}
    for method, counts in measured.items():
        assert 1.7 < counts["8"] / counts["2"] < 1.8, "2 (W-1)/W: constant but for the ring's own factor"
        assert f"| {method} | {counts['2']:,} |" in (tmp_path / "traffic.md").read_text()
        assert f"{counts['8']:,}" in output
    assert (tmp_path / "traffic.png").read_bytes().startswith(b"\x89PNG")


def test_framework_overhead(data: Path, tmp_path: Path) -> None:
    script = [sys.executable, EXAMPLES / "framework_overhead.py", "--output", tmp_path]
    output = succeed([*script, "--method", "powersgd", "--repeats", "1"], data)
    (result,) = json.loads((tmp_path / "framework_overhead.json").read_text())["results"]
    torch, tensorflow = (result["milliseconds"][framework] for framework in ("torch", "tensorflow"))
    assert torch > 0.0 and tensorflow > 0.0
    row = f"| powersgd | {torch:.1f} | {tensorflow:.1f} | {tensorflow / torch:.2f} |"
    assert row in output
    assert row in (tmp_path / "framework_overhead.md").read_text()


def test_custom_compressor(data: Path) -> None:
    output = succeed([sys.executable, EXAMPLES / "custom_compressor.py"], data)
    errors = dict(line.split(": mean of 40 steps off by ") for line in output.splitlines() if "off by" in line)
    assert {name: float(rest.split("%")[0]) < 10 for name, rest in errors.items()} == {
        "int8": True,
        "cyclic-slice": True,
    }


@pytest.mark.multiprocess
def test_numpy_mpi(data: Path) -> None:
    output = succeed([*MPIRUN, sys.executable, EXAMPLES / "numpy_mpi.py", "--steps", "10", "--batch-size", "8"], data)
    assert "PowerSGD(rank=2): test accuracy" in output
    assert output.count("test accuracy") == 1


@pytest.mark.multiprocess
@pytest.mark.timeout(2 * SECONDS)
def test_fashion_mnist_under_mpirun(data: Path, tmp_path: Path) -> None:
    script = [sys.executable, EXAMPLES / "fashion_mnist.py", "--steps", str(STEPS), "--batch-size", "8"]
    output = succeed([*MPIRUN, *script, "--method", "fp16", "--json", tmp_path / "measured.json"], data)
    assert f"step {STEPS}/{STEPS} loss" in output
    assert output.count("test accuracy") == 1
    assert json.loads((tmp_path / "measured.json").read_text())["compression"] == repr(Cast())


@pytest.mark.multiprocess
@pytest.mark.timeout(3 * SECONDS)
def test_text_is_as_under_horovod_without_compression_and_sends_less_with_it(data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "stock_text.py"
    copy.write_text(for_horovod("tensorflow_text.py"))
    (tmp_path / "support").symlink_to(EXAMPLES / "support")
    settings = ["--steps", "4", "--batch-size", "16", "--length", "8", "--width", "16"]
    stock, ours, compressed = (
        succeed([*MPIRUN, sys.executable, script, *settings, *more], data)
        for script, more in (
            (copy, []),
            (EXAMPLES / "tensorflow_text.py", []),
            (EXAMPLES / "tensorflow_text.py", ["--method", "powersgd", "--sparse-as-dense"]),
        )
    )
    assert losses(stock) == pytest.approx(losses(ours), abs=1.5e-4)  # printed with four digits
    assert len(losses(ours)) == 4
    assert perplexity(stock) == pytest.approx(perplexity(ours), rel=1e-3)
    assert perplexity(compressed) > 1.0
    sent, dense = (int(n.replace(",", "")) for n in re.findall(r"([\d,]+) (?:bytes a step|without)", compressed))
    assert sent < dense / 2 or RANKS == "1"


def losses(output: str) -> list[float]:
    return [float(loss) for loss in re.findall(r"step \d+/\d+ loss (\S+)", output)]


def perplexity(output: str) -> float:
    (found,) = re.findall(r"validation perplexity (\S+) after", output)
    return float(found)


def test_text_refuses_momentum_twice(data: Path) -> None:
    code, output = run([sys.executable, EXAMPLES / "tensorflow_text.py", "--method", "sketchedsgd"], data)
    assert code == 2
    assert "has momentum of its own" in output


@pytest.mark.multiprocess
@pytest.mark.timeout(3 * SECONDS)
def test_demo(data: Path, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- demo table: begin -->\nold\n<!-- demo table: end -->\nafter\n")
    methods = ["dense", "powersgd:rank=2"]
    output = succeed(demo(data, tmp_path, "--method", ",".join(methods), "--readme", str(readme)), data)
    report = json.loads((tmp_path / "demo.json").read_text())

    assert [result["method"] for result in report["results"]] == methods
    dense, powersgd = report["results"]
    for result in report["results"]:
        assert result["workers"] == int(RANKS)
        assert result["steps"] == STEPS
        assert 0.0 <= result["accuracy"] <= 1.0
        assert result["curve"][-1]["step"] == STEPS
        assert set(result["milliseconds"]) == {"step", "compute", "compress", "communicate"}
    assert dense["compression"] == "Identity()"
    assert powersgd["compression"] == "PowerSGD(rank=2)"
    if int(RANKS) > 1:
        assert abs(dense["bytes_per_step"] - dense["dense_bytes_per_step"]) <= 100  # whole bytes, tensor by tensor
        assert powersgd["bytes_per_step"] < dense["bytes_per_step"] / 20

    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    lines = output.splitlines()
    for result in report["results"]:
        row = next(line for line in lines if result["method"] in line and "%" in line)
        assert f"{result['accuracy']:.2%}" in row
        assert f"{result['bytes_per_step']:,}" in row
    for text in ((tmp_path / "demo.md").read_text(), readme.read_text()):
        assert "| powersgd:rank=2 |" in text
    assert readme.read_text().startswith("before\n<!--")
    assert readme.read_text().endswith("-->\nafter\n")
    assert "old" not in readme.read_text()


@pytest.mark.multiprocess
@pytest.mark.timeout(3 * SECONDS)
@pytest.mark.parametrize("framework", ["keras", "tensorflow"])
def test_demo_of_other_frameworks(data: Path, tmp_path: Path, framework: str) -> None:
    method = "distefblocksgdm"  # has momentum and follows the learning rate
    output = succeed(demo(data, tmp_path, "--framework", framework, "--method", method), data)
    report = json.loads((tmp_path / f"demo.{framework}.json").read_text())
    assert report["run"]["framework"] == framework
    assert set(report["machine"]["libraries"]) == {"Keras", "TensorFlow", "Horovod"}
    (result,) = report["results"]
    assert result["compression"] == "DistEFBlockSGDM()"
    assert result["workers"] == int(RANKS)
    assert result["steps"] == result["curve"][-1]["step"] == STEPS
    assert 0.0 <= result["accuracy"] <= 1.0
    assert set(result["milliseconds"]) == {"step"}
    if int(RANKS) > 1:
        assert 0 < result["bytes_per_step"] < result["dense_bytes_per_step"] / 20
    page = (tmp_path / f"demo.{framework}.md").read_text()
    assert f"| {method} | {result['accuracy']:.2%} | {result['bytes_per_step']:,} |" in page
    assert f"(demo.{framework}.png)" in page
    assert f"{result['bytes_per_step']:,}" in output
    assert (tmp_path / f"demo.{framework}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.multiprocess
@pytest.mark.timeout(2 * SECONDS)
def test_demo_over_mpi(data: Path, tmp_path: Path) -> None:
    succeed(demo(data, tmp_path, "--method", "fp16", "--transport", "mpi"), data)
    assert json.loads((tmp_path / "demo.json").read_text())["run"]["transport"] == "mpi"


@pytest.mark.multiprocess
@pytest.mark.timeout(2 * SECONDS)
def test_demo_says_why_workers_failed(tmp_path: Path) -> None:
    code, output = run(demo(tmp_path, tmp_path, "--method", "dense"), tmp_path / "nowhere")
    assert code == 1
    assert "dense: the workers failed with exit code" in output
    assert "run `make setup`, or set HVD_COMPRESS_DATA" in output
    assert "Traceback" not in output.split("dense: the workers")[0]
    remove_log(output)


@pytest.mark.multiprocess
def test_demo_ends_workers_that_take_too_long(data: Path, tmp_path: Path) -> None:
    code, output = run(demo(data, tmp_path, "--method", "dense", "--limit", "1"), data, seconds=60)
    assert code == 1
    assert "did not end within 1 s" in output
    remove_log(output)


def test_demo_refuses_unknown_methods_at_once(data: Path, tmp_path: Path) -> None:
    code, output = run(demo(data, tmp_path, "--method", "dense,powersdg"), data)
    assert code == 2
    assert "did you mean 'powersgd'" in output
    code, output = run(demo(data, tmp_path, "--method", "powersgd:rank=0"), data)
    assert code == 2
    assert "rank must be a whole number of at least 1" in output
    code, output = run(demo(data, tmp_path, "--method", "powersgd:rnk=2"), data)
    assert code == 2
    assert "rnk" in output
