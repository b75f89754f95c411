"""The bytes on the wire do not change unnoticed: small frozen examples, in tests/fixtures/wire.

`python tests/fixtures/wire/make.py` writes them anew, after a format was changed on purpose.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import Library, bits, dtype_of, wide
from oracles import quantisers as oracle

import hvd_compress
from hvd_compress import Spec
from hvd_compress.ops import ops_of

FIXTURES = Path(__file__).parent / "fixtures" / "wire"
NAMES = sorted(path.stem for path in FIXTURES.glob("*.json") if path.stem != "pack")
WIDTHS = ("1", "2", "3", "4", "5", "8")


def load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FIXTURES / f"{name}.json").read_text())
    return loaded


def test_there_are_fixtures() -> None:
    assert {load(name)["codec"].split("(")[0] for name in NAMES} == {
        *("BlockSign", "OneBit", "QSGD", "TernGrad", "Natural", "TopK", "Cast")
    }
    assert sorted(load("pack")) == sorted(WIDTHS)


@pytest.mark.parametrize("width", WIDTHS)
def test_packed_numbers(library: Library, width: str) -> None:
    fixture = load("pack")[width]
    numbers, packed = fixture["numbers"], bytes.fromhex(fixture["hex"])
    array = library.array(numbers, "uint8")
    ops = ops_of(array)
    assert bits(ops.pack(array, int(width))) == packed == oracle.pack(numbers, int(width))
    received = library.array(list(packed), "uint8")
    assert wide(ops.unpack(received, int(width), len(numbers))).tolist() == numbers


@pytest.mark.parametrize("name", NAMES)
def test_encoding_gives_the_stated_bytes(library: Library, name: str) -> None:
    fixture = load(name)
    codec, array = eval(fixture["codec"], vars(hvd_compress)), library.array(fixture["input"], fixture["dtype"])
    parts = codec.encode(array, ops_of(array), tuple(fixture["key"]))
    assert [dtype_of(part) for part in parts] == [part["dtype"] for part in fixture["parts"]]
    assert [bits(part).hex() for part in parts] == [part["hex"] for part in fixture["parts"]]


@pytest.mark.parametrize("name", NAMES)
def test_decoding_gives_the_stated_numbers(library: Library, name: str) -> None:
    fixture = load(name)
    codec, ops = eval(fixture["codec"], vars(hvd_compress)), ops_of(library.array(0.0))
    raw = (np.frombuffer(bytes.fromhex(part["hex"]), part["dtype"]) for part in fixture["parts"])
    parts = tuple(ops.from_numpy(x) for x in raw)
    decoded = codec.decode(parts, Spec((len(fixture["input"]),), fixture["dtype"]), ops)
    assert dtype_of(decoded) == fixture["dtype"]
    assert wide(decoded).tolist() == fixture["decoded"]
