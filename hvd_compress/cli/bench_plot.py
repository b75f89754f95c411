"""`bench-plot`: a picture and a page of Markdown from what bench, bench-growth or bench-network wrote with --json."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ..errors import ConfigurationError

NAME = "bench-plot"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add what to read and what to write."""
    parser.add_argument("file", type=Path, help="JSON")
    parser.add_argument("-o", "--output", type=Path, help="picture to write: .svg, .png, .pdf; needs matplotlib")
    parser.add_argument("--markdown", type=Path, help="page to write: tables, and the picture if there is one")


def run(arguments: argparse.Namespace) -> int:
    """Read, draw and write."""
    from ..bench.page import page
    from ..bench.saved import read_report

    source, picture, markdown = arguments.file, arguments.output, arguments.markdown
    if picture is None and markdown is None:
        raise ConfigurationError("There is nothing to write: give -o for a picture, --markdown for a page, or both.")
    report = read_report(source)
    if picture is not None:
        from ..bench.plots import plot

        plot(report, picture)
    if markdown is not None:
        text = page(report, _link(source, markdown), None if picture is None else _link(picture, markdown))
        try:
            markdown.write_text(text)
        except OSError as error:
            raise ConfigurationError(f"{markdown} cannot be written: {error.strerror}.") from error
    return 0


def _link(target: Path, page: Path) -> str:
    """Return how a page names another file."""
    return Path(os.path.relpath(target, page.parent)).as_posix()
