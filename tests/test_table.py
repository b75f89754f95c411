"""The table of cases covers what the package exports; the oracles are independent of it."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest
from cases import ROWS, parts_of, public_compressors

ORACLES = sorted((Path(__file__).parent / "oracles").glob("*.py"))


@pytest.mark.parametrize("compressor", public_compressors(), ids=lambda c: c.__name__)
def test_every_public_compressor_has_a_row(compressor: type) -> None:
    assert any(type(part) is compressor for row in ROWS for part in parts_of(row.compressor))


@pytest.mark.parametrize(
    ("compressor", "setting"),
    [
        pytest.param(compressor, field, id=f"{compressor.__name__}-{field.name}")
        for compressor in public_compressors()
        for field in dataclasses.fields(compressor)
    ],
)
def test_every_setting_is_exercised_with_two_values(compressor: type, setting: dataclasses.Field) -> None:
    made = [part for row in ROWS for part in parts_of(row.compressor) if type(part) is compressor]
    values = {getattr(part, setting.name) for part in made}
    assert len(values) >= 2


def test_ids_are_unique() -> None:
    assert len({row.id for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("path", ORACLES, ids=lambda path: path.stem)
def test_oracles_do_not_import_the_package(path: Path) -> None:
    imported = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported.append(node.module or "")
    assert not [name for name in imported if name.split(".")[0] == "hvd_compress"]
