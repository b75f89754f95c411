"""What the documents say is so: snippets run, links lead somewhere, every public compressor has an entry."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from cases import public_compressors

from hvd_compress import names
from hvd_compress.horovod import launch

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md"))]
FENCE = re.compile(
    r"^(?P<marker><!-- runnable -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)
LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
# Files and folders named in running text, as in `ci/setup.py`.
PATH = re.compile(r"`((?:ci|docs|examples|hvd_compress|tests)/[\w/.-]*)`")
SECONDS = 300


@dataclass(frozen=True)
class Snippet:
    """A piece of Python in a page, with blank lines before it so that tracebacks name the page's lines."""

    page: Path
    code: str
    runnable: bool


def snippets(page: Path) -> list[Snippet]:
    text = page.read_text()
    return [
        Snippet(page, "\n" * text[: match.start("code")].count("\n") + match["code"], match["marker"] is not None)
        for match in FENCE.finditer(text)
        if match["language"] == "python"
    ]


STRICT = {
    "torch": ["import warnings", "warnings.simplefilter('error')"],
    # What Keras and TensorFlow warn of in themselves is not about the snippets.
    "keras": [
        "import keras, warnings",
        "warnings.simplefilter('error')",
        "warnings.filterwarnings('ignore', '__array__ implementation', DeprecationWarning)",
    ],
}
DRIVER = re.compile(r"hvd_compress\.(torch|tensorflow|keras)\b")


def driver(page: Path) -> str | None:
    """Return which of our Horovod modules a page's snippets import first; None if they need no workers."""
    code = "\n".join(snippet.code for snippet in snippets(page) if snippet.runnable)
    found = DRIVER.search(code)
    return found[1] if found else None


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """Return the names that a page's headings have in links."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_snippets_are_python(page: Path) -> None:
    for snippet in snippets(page):
        code = snippet.code if snippet.runnable else f"def generator():\n{snippet.code}".replace("\n", "\n    ")
        compile(code, str(page), "exec", dont_inherit=True)


@pytest.mark.parametrize("page", [p for p in PAGES if driver(p) is None], ids=name_of)
def test_snippets_without_workers_run(page: Path) -> None:
    namespace: dict[str, object] = {"__name__": "snippet"}
    for snippet in snippets(page):
        if snippet.runnable:
            exec(compile(snippet.code, str(page), "exec", dont_inherit=True), namespace)


@pytest.mark.multiprocess
@pytest.mark.timeout(SECONDS + 30)
@pytest.mark.parametrize("library", ["torch", "keras"])
def test_snippets_with_workers_run(library: str, tmp_path: Path) -> None:
    pages = [page for page in PAGES if driver(page) == library]
    assert pages
    lines = [*STRICT[library], f"import hvd_compress.{library} as hvd"]
    for page in pages:
        lines.append("names = {'__name__': 'snippet'}")
        runnable = [snippet for snippet in snippets(page) if snippet.runnable]
        lines += [f"exec(compile({snippet.code!r}, {str(page)!r}, 'exec'), names)" for snippet in runnable]
        lines.append(f"print('rank', hvd.rank(), 'has run {name_of(page)}', flush=True)")
    script = tmp_path / "snippets.py"
    script.write_text("\n".join(lines) + "\n")
    horovodrun = str(Path(sys.executable).parent / "horovodrun")
    done = subprocess.run(
        launch.command("horovodrun --gloo", 2, [sys.executable, "-u", str(script)], horovodrun),
        env={**launch.environment(), "OMP_NUM_THREADS": "1", "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": "60"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for page in pages:
        assert done.stdout.count(f"has run {name_of(page)}") == 2, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text())
    for match in LINK.finditer(text):
        target, _, anchor = match["target"].partition("#")
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        there = (page.parent / target) if target else page
        assert there.exists(), f"{name_of(page)} links to {target}"
        if anchor:
            assert anchor in anchors(there), f"{name_of(page)} links to {match['target']}"
    for path in PATH.findall(text):
        assert (ROOT / path).exists(), f"{name_of(page)} names {path}"


def test_every_page_that_needs_workers_is_run() -> None:
    assert {driver(page) for page in PAGES} == {None, "torch", "keras"}


def test_every_public_compressor_has_an_entry() -> None:
    text = (ROOT / "docs" / "compressors.md").read_text()
    for compressor in public_compressors():
        assert f"\n### `{compressor.__name__}`\n" in text


def test_every_built_in_name_is_documented() -> None:
    text = (ROOT / "docs" / "compressors.md").read_text()
    for name in names():
        assert f"`{name}`" in text


def test_every_method_has_a_page() -> None:
    from hvd_compress.methods import Method

    for compressor in public_compressors():
        if issubclass(compressor, Method):
            assert (ROOT / "docs" / "methods" / f"{compressor.__name__.lower()}.md").is_file()


def test_contributing_fits_on_a_screen() -> None:
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) <= 50


def test_documents_name_no_local_path() -> None:
    for page in PAGES:
        assert not re.search(r"/(home|root|work|Users)/", page.read_text())
