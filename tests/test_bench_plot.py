"""`bench-plot`: pictures and pages say what the file says, and those in the documentation were made from theirs."""

from __future__ import annotations

import io
import json
import sys
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from bench_rows import growth, point, sent, step
from rich.console import Console

from hvd_compress.bench.growth.model import Fit
from hvd_compress.bench.growth.report import as_json as growth_json
from hvd_compress.bench.growth.settings import GrowthSettings
from hvd_compress.bench.micro import MicroSettings
from hvd_compress.bench.micro.report import as_json as micro_json
from hvd_compress.bench.network.report import as_json as network_json
from hvd_compress.bench.network.report import table
from hvd_compress.bench.network.suite import NetworkSettings
from hvd_compress.bench.page import page
from hvd_compress.bench.plots.growth import growth_figure
from hvd_compress.bench.plots.micro import micro_figure
from hvd_compress.bench.plots.network import network_figure
from hvd_compress.bench.saved import read_report
from hvd_compress.bench.tables import as_markdown, table_of_numbers
from hvd_compress.bench.targets import Target, growth_targets, micro_targets, network_targets
from hvd_compress.bench.turns import Budget
from hvd_compress.cli import main
from hvd_compress.cli.measuring import conclude

BENCHMARKS = Path(__file__).resolve().parents[1] / "docs" / "benchmarks"
POINTS = [point(row, 2**20 * n, 2.0 * n + i) for n in (1, 16) for i, row in enumerate(("powersgd", "codec:qsgd"))]
BUDGET = Budget(3, 5, 1.0)
MODEL = Fit(1e-3, 1e-4, 1e-9, 0.05)
PREDICTED = [
    {"row": "identity", "workers": workers, "seconds": MODEL.seconds(2.0 * workers, 0.0), "model": asdict(MODEL)}
    for workers in (32, 128)
]
GROWN = [
    *(growth(row, "tensors", n, 1e-4 * n) for n in (10, 2000) for row in ("horovod", "identity")),
    *(growth(row, "workers", 10, 1e-3 * n, n) for n in (2, 4) for row in ("horovod", "identity")),
]
STEPS = [
    step(row, seconds * workers, workers=workers, rate=rate)
    for rate in ("1gbit", "unshaped")
    for workers in (2, 4)
    for row, seconds in (("alone", 0.05), ("horovod", 0.25), ("ours:powersgd:rank=4", 0.065))
]

SENT = [sent("alone", 2048.0, None), sent("ours:powersgd:rank=4", 1050.0, 1000.0)]


def report(suite: str) -> tuple[dict[str, Any], list[Target]]:
    if suite == "micro":
        micro = MicroSettings(("powersgd", "codec:qsgd"), (2**20, 2**24))
        return micro_json(POINTS, micro, 1, 0.0), micro_targets(POINTS, 1)
    if suite == "growth":
        settings = GrowthSettings(("identity",), (10240,), (10, 2000), BUDGET)
        return growth_json(settings, GROWN, PREDICTED, 0.0), growth_targets(GROWN)
    network = NetworkSettings(("lstm",), ("1gbit", "unshaped"), (2, 4), ("horovod", "ours:powersgd:rank=4"), BUDGET)
    return network_json(network, STEPS, SENT, 0.0), network_targets(STEPS, SENT)


def written(suite: str, folder: Path) -> Path:
    """Write what a command would, and return the file."""
    path = folder / f"{suite}.json"
    typed = ("bench", "--json", str(path), "-n", "3")
    conclude(Console(quiet=True), Namespace(json=path, typed=typed), *report(suite))
    return path


# On each page: a verdict, and numbers of a measured row.
SAID = {
    "micro": (
        "| error feedback + rank 4: copies of the gradient, from 16 MB up | <= 10 | 32 | not met | powersgd, 16M |",
    ),
    "growth": (
        "| plain averages through our driver / Horovod dense | <= 1.05 | 1 | met |",
        "not measured**\n",
        "| identity | 1 | 100 | 1 | 5% | 7.4 | 26.6 |",
    ),
    "network": (
        "| PowerSGD rank 4: step / floor | <= 1.5 | 1.3 | met | ours:powersgd:rank=4, lstm, 1gbit, 2 workers |",
        "| ours:powersgd:rank=4 | 130 | 117..156 | 1.30 | 0.26 | 65 | 32.5 | 32.5 | 1,000 | 5 |",
        "| alone | 2,048 |  |  | 4 |\n| ours:powersgd:rank=4 | 1,050 | 1,000 | +5.0% | 4 |",
    ),
}


@pytest.mark.parametrize("suite", SAID)
def test_pages_and_pictures(suite: str, tmp_path: Path) -> None:
    source, picture, made = written(suite, tmp_path), tmp_path / "plots" / "x.svg", tmp_path / "x.md"
    picture.parent.mkdir()
    assert main(["bench-plot", str(source), "-o", str(picture), "--markdown", str(made)]) == 0
    text = made.read_text()
    for said in SAID[suite]:
        assert said in text, text
    assert f"]({suite}.json)" in text and "](plots/x.svg)" in text
    assert "python -m hvd_compress bench -n 3`" in text and str(tmp_path) not in text
    drawn = picture.read_text()
    assert drawn.startswith("<?xml") and all(row in drawn for row in ("powersgd" if suite != "growth" else "identity",))
    # Equal numbers make equal files, so that a new run of the command changes nothing.
    again = tmp_path / "again.svg"
    assert main(["bench-plot", str(source), "-o", str(again)]) == 0 and again.read_text() == drawn


def test_micro_lines_are_copies_by_size() -> None:
    (axes,) = micro_figure(POINTS).axes
    lines = {str(line.get_label()): line for line in axes.lines}
    assert list(lines["powersgd"].get_xdata()) == [2**20, 2**24]
    assert list(lines["powersgd"].get_ydata()) == [2.0, 32.0]
    assert lines["codec:qsgd"].get_linestyle() == "--" and axes.get_xscale() == axes.get_yscale() == "log"


def test_models_are_dashed_and_begin_at_the_last_measured_point() -> None:
    tensors, workers = growth_figure(GROWN, PREDICTED).axes
    assert [line.get_linestyle() for line in tensors.lines] == ["-", "-"]
    (dashed,) = (line for line in workers.lines if line.get_linestyle() == "--")
    assert list(dashed.get_xdata()) == [4, 32, 128]
    assert list(dashed.get_ydata()) == [4e-3, *(said["seconds"] for said in PREDICTED)]
    assert "model" in workers.get_title(loc="left") and "model" not in tensors.get_title(loc="left")


def test_bars_are_steps_and_dashed_lines_floors() -> None:
    figure = network_figure(STEPS)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["lstm, 1gbit", "lstm, unshaped"]
    for axes in figure.axes:
        widths = sorted(bar.get_width() for bar in axes.patches)
        assert widths == pytest.approx([130.0, 260.0, 500.0, 1000.0])
        floors = [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--"]
        assert floors == pytest.approx([100.0, 200.0])
        assert [label.get_text() for label in axes.get_yticklabels()] == ["horovod", "ours:powersgd:rank=4"]


def test_titles_stay_in_one_line() -> None:
    out = io.StringIO()
    title = "a title that is much longer than its narrow table"
    made = table_of_numbers(title, ("n",))
    made.add_row("a|b", "1")
    Console(width=200, file=out).print(made)
    assert title in out.getvalue()
    assert as_markdown(made) == f"**{title}**\n\n| row | n |\n| --- | ---: |\n| a\\|b | 1 |\n"


def test_peers_are_what_is_neither_ours_nor_the_floor() -> None:
    rows = [step("alone", 0.1), step("one-reduction:4", 0.2), step("horovod", 0.4), step("ours:identity", 0.3)]
    column = {str(c.header): list(c.cells) for c in table(rows).columns}
    assert column["/ best peer"] == ["0.50", "1.00", "2.00", "1.50"]
    assert column["compute"] == ["", "", "", "150"]


def refused(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    assert main(["bench-plot", *map(str, words)]) == 2
    return capsys.readouterr().err


def test_what_cannot_be_plotted_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = written("micro", tmp_path)
    assert "nothing to write" in refused(capsys, source)
    assert "cannot be read" in refused(capsys, tmp_path / "none.json", "-o", tmp_path / "x.svg")
    assert "ends in .svg" in refused(capsys, source, "-o", tmp_path / "x.docx")
    assert "cannot be written" in refused(capsys, source, "-o", tmp_path / "none" / "x.svg")
    assert "cannot be written" in refused(capsys, source, "--markdown", tmp_path / "none" / "x.md")
    other = tmp_path / "other.json"
    for text, told in (("{", "is no JSON"), ("{}", "no measurements"), ('{"suite": "growth"}', "no measurements")):
        other.write_text(text)
        assert told in refused(capsys, other, "-o", tmp_path / "x.svg")
    old = json.loads(source.read_text())
    del old["points"][0]["state_bytes"]
    other.write_text(json.dumps(old))
    assert "has no 'state_bytes'" in refused(capsys, other, "-o", tmp_path / "x.svg")


def test_pictures_need_matplotlib_and_pages_do_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = written("network", tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    told = refused(capsys, source, "-o", tmp_path / "x.svg")
    assert "pip install matplotlib" in told and told.count("\n") == 1
    assert main(["bench-plot", str(source), "--markdown", str(tmp_path / "x.md")]) == 0


def test_pages_of_the_documentation_are_made_from_their_files() -> None:
    pages = {path.stem for path in BENCHMARKS.glob("*.md")} - {"README"}
    assert (
        pages == {path.stem for path in BENCHMARKS.glob("*.json")} == {path.stem for path in BENCHMARKS.glob("*.svg")}
    )
    assert pages
    for name in pages:
        made = page(read_report(BENCHMARKS / f"{name}.json"), f"{name}.json", f"{name}.svg")
        assert (BENCHMARKS / f"{name}.md").read_text() == made, f"make docs/benchmarks/{name}.md anew by bench-plot"
